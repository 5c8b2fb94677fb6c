"""Loading an adapter that does not fit raises a one-line error through every API, and leaves the model unchanged."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from actshift import ActshiftError, SteeringConfig, attach, load_adapter
from actshift.tuner import read_config, steering_layers
from tests.contract.cases import randomise, run
from tests.zoo import ARCHITECTURES

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def _drop(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / WEIGHTS)


def _add(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.model.layers.7.odd.weight": torch.zeros(2)}, folder / WEIGHTS)


def _truncate(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _scramble(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 400)


def _pickle_only(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _edit(**changes):
    def apply(folder):
        stored = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**stored, **changes}))

    return apply


DAMAGED = {
    "missing tensor": (_drop, "lacks tensor"),
    "foreign tensor": (_add, "holds the foreign tensor 'model.layers.7.odd.weight'"),
    "truncated": (_truncate, "is damaged"),
    "scrambled": (_scramble, "is damaged"),
    "pickle only": (_pickle_only, "holds no adapter_model.safetensors"),
    "other rank": (
        _edit(adapter={"kind": "low_rank", "rank": 5}),
        r"shape \[4, 32\], and the model needs \[5, 32\]",
    ),
    "other layers": (_edit(layers=[0]), "holds the foreign tensor"),
    "newer format": (_edit(format=2), "format 2"),
    "unknown field": (_edit(colour="red"), "Unknown field 'colour'"),
    "unknown adapter": (_edit(adapter={"kind": "hologram"}), "Unknown adapter kind 'hologram'"),
}
APIS = {
    "load_adapter": lambda model, folder: load_adapter(model, folder),
    "PeftModel": lambda model, folder: PeftModel.from_pretrained(model, folder),
    "transformers": lambda model, folder: model.load_adapter(folder),
}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("damage_name", DAMAGED)
def test_damaged_adapter_is_refused_and_the_model_stays_unchanged(api, damage_name, base, adapter_folder):
    damage, message = DAMAGED[damage_name]
    damage(adapter_folder)
    untouched = _state(base)
    with pytest.raises(ActshiftError, match=message) as caught:
        APIS[api](base, str(adapter_folder))
    assert "\n" not in str(caught.value)
    assert _state(base) == untouched


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("config", [{"num_hidden_layers": 2}, {"hidden_size": 64}])
def test_adapter_of_a_model_of_another_size_is_refused(api, config, adapter_folder):
    other = ARCHITECTURES["llama"](**config)
    untouched = _state(other)
    with pytest.raises(ActshiftError, match="is for a model with 3 blocks of width 32, and LlamaForCausalLM has"):
        APIS[api](other, str(adapter_folder))
    assert _state(other) == untouched


def test_adapter_of_another_architecture_is_refused(adapter_folder):
    with pytest.raises(ActshiftError, match="does not fit this model and config"):
        load_adapter(ARCHITECTURES["gpt2"](), str(adapter_folder))


def test_refused_second_adapter_leaves_the_first_unchanged(base, adapter_folder):
    model = attach(base, SteeringConfig(rank=2))
    randomise(model)
    before = run(model.eval(), "llama")
    _drop(adapter_folder)
    with pytest.raises(ActshiftError, match="lacks tensor"):
        load_adapter(model, str(adapter_folder), adapter_name="second")
    assert list(model.peft_config) == ["default"]
    assert torch.equal(run(model, "llama"), before)


def test_model_accepts_a_config_after_refusing_another(base):
    with pytest.raises(ActshiftError, match="ayer 9 is out of range"):
        base.add_adapter(SteeringConfig(layers=[9]))
    base.add_adapter(SteeringConfig(layers=[1]))
    assert len(steering_layers(base)) == 1


def test_missing_and_invalid_files_are_refused(tmp_path, base):
    for source, message in (
        (tmp_path, "is not an adapter: it holds no adapter_config.json"),
        (tmp_path / "nowhere", "No adapter at"),
    ):
        with pytest.raises(ActshiftError, match=message):
            load_adapter(base, str(source))
    with pytest.raises(ActshiftError, match="the hub cannot be reached"):
        read_config("somebody/some-adapter")
    (tmp_path / CONFIG).write_text("{broken")
    with pytest.raises(ActshiftError, match="not valid JSON"):
        read_config(str(tmp_path))


def test_lora_is_not_a_steering_adapter(tmp_path, base):
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(str(tmp_path))
    with pytest.raises(ActshiftError, match="holds an adapter of type 'LORA'"):
        read_config(str(tmp_path))


def test_adapter_name_that_occurs_in_tensor_names_is_refused(base):
    for name in (
        "up",
        "layers",
    ):  # PEFT drops every tensor with ".up." in its name when it saves another adapter
        with pytest.raises(ActshiftError, match=f"cannot be called '{name}'"):
            attach(base, SteeringConfig(), adapter_name=name)


def test_rank_above_width_is_refused(base):
    with pytest.raises(ActshiftError, match="rank 33 is above the site's width 32"):
        attach(base, SteeringConfig(rank=33))


def _state(model):
    return (
        [name for name, _ in model.named_modules()],
        [len(module._forward_hooks) for module in model.modules()],
        hasattr(model, "peft_config"),
        [p.requires_grad for p in model.parameters()],
    )
