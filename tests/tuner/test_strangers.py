"""A stranger's files can set only the adapter; other contents are refused before the model is touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn, zeros
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

from actshift import ActshiftError, JointConfig, SteeringConfig, attach, load_adapter, set_strength
from actshift.tuner import read_config
from actshift.tuner.classifier_head import saved_head
from actshift.tuner.loading import base_model_of, load_any_adapter
from tests.contract.cases import fresh_model, randomise, run
from tests.zoo import VOCAB

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
P, WIDTH = "base_model.model.", 32
TINY = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
KINDS = {
    "steering": lambda: SteeringConfig(rank=2),
    "joint": lambda: JointConfig(r=2),
    "lora": lambda: LoraConfig(r=2, target_modules=["q_proj"]),
}
FOREIGN = {
    "norm": (f"{P}model.norm.weight", zeros(WIDTH)),
    "norm without prefix": ("model.norm.weight", zeros(WIDTH)),
    "half a prefix": ("base_model.model.norm.weight", zeros(WIDTH)),
    "two prefixes": (f"{P}{P}model.norm.weight", zeros(WIDTH)),
    "compiled": (f"{P}_orig_mod.model.norm.weight", zeros(WIDTH)),
    "wrapped by FSDP": (f"{P}_fsdp_wrapped_module.model.norm.weight", zeros(WIDTH)),
    "projection": (f"{P}model.layers.0.self_attn.q_proj.weight", zeros(WIDTH, WIDTH)),
    "below a LoRA": (f"{P}model.layers.0.self_attn.q_proj.base_layer.weight", zeros(WIDTH, WIDTH)),
    "buffer": (f"{P}model.rotary_emb.inv_freq", zeros(4)),
    "embedding": (f"{P}model.embed_tokens.weight", zeros(VOCAB, WIDTH)),
    "head": (f"{P}lm_head.weight", zeros(VOCAB, WIDTH)),
    "embedding below a LoRA": (f"{P}model.embed_tokens.base_layer.weight", zeros(VOCAB, WIDTH)),
    "original of a saved module": (f"{P}lm_head.original_module.weight", zeros(VOCAB, WIDTH)),
    "copy of no saved module": (f"{P}lm_head.modules_to_save.weight", zeros(VOCAB, WIDTH)),
    "larger embedding": (f"{P}model.embed_tokens.weight", zeros(VOCAB + 4, WIDTH)),
    "smaller embedding": (f"{P}model.embed_tokens.weight", zeros(5, WIDTH)),
    "scalar embedding": (f"{P}model.embed_tokens.weight", zeros(())),
    "integer embedding": (f"{P}model.embed_tokens.weight", zeros(VOCAB, WIDTH).int()),
    "attribute": (f"{P}model.training", zeros(1)),
    "no name": (P, zeros(1)),
    "escape sequence": (f"{P}\x1b[31mred", zeros(1)),
}
APIS: dict[str, Callable[[nn.Module, str], Any]] = {
    "load_any_adapter": load_any_adapter,
    "PeftModel": PeftModel.from_pretrained,
    "transformers": lambda model, folder: model.load_adapter(folder),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """Return a saved base model, and an adapter of each kind."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("base", *KINDS)}
    fresh_model("llama").save_pretrained(folders["base"])
    for name, config in KINDS.items():
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(folders["base"]), config())
        randomise(model)
        model.save_pretrained(str(folders[name]))
    return folders


@pytest.fixture
def base(saved):
    return AutoModelForCausalLM.from_pretrained(saved["base"]).eval()


@pytest.fixture
def adapter(saved, tmp_path) -> Callable[..., str]:
    """Return a function that copies an adapter and changes its tensors or the values of its config."""

    def copy(kind: str, tensors: dict[str, Any] | None = None, **config: Any) -> str:
        folder = tmp_path / kind
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved[kind], folder)
        save_file({**load_file(folder / WEIGHTS), **(tensors or {})}, folder / WEIGHTS)
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**values, **config}))
        return str(folder)

    return copy


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


OTHER_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "steering"]


@pytest.mark.parametrize("kind", ["steering", *OTHER_KINDS])
@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_tensor_is_refused_by_name_and_the_model_is_unchanged(case, kind, base, adapter) -> None:
    name, tensor = FOREIGN[case]
    folder, before = adapter(kind, {name: tensor}), state(base)
    for api in APIS if kind != "lora" else ["load_any_adapter"]:
        with pytest.raises(ActshiftError) as caught:
            APIS[api](base, folder)
        message = str(caught.value)
        shown = repr(name.removeprefix(P))[1:-1]
        assert shown in message and message.isprintable() and "nexpected" not in message
        assert_unchanged(base, before)


@pytest.mark.parametrize("kind", ["joint", "lora"])
def test_a_joint_adapter_and_a_lora_cannot_set_the_base_either(kind, base, adapter) -> None:
    before = state(base)
    for case in ("norm", "below a LoRA", "head"):
        with pytest.raises(ActshiftError, match=FOREIGN[case][0].removeprefix(P)):
            load_any_adapter(base, adapter(kind, dict([FOREIGN[case]])))
    assert_unchanged(base, before)


@pytest.mark.parametrize("case", ["norm", "embedding", "head", "scalar embedding", "integer embedding"])
def test_other_ways_to_set_tensors_do_not_set_the_base_either(case, base, adapter) -> None:
    """PEFT ignores the file's config if the adapter exists, or if the caller gives a config."""
    name, tensor = FOREIGN[case]
    folder = adapter("steering", {name: tensor})
    expected = run(base, "llama")
    model = get_peft_model(base, SteeringConfig(rank=2)).eval()
    tensors = load_file(f"{folder}/{WEIGHTS}")
    for attempt in (
        lambda: model.load_adapter(folder, "default"),
        lambda: set_peft_model_state_dict(model, tensors),
        lambda: PeftModel.from_pretrained(fresh_model("llama"), folder, config=SteeringConfig(rank=2)),
    ):
        with pytest.raises(ActshiftError, match=name.removeprefix(P).rpartition(".")[0]):
            attempt()
    set_strength(model, 0)
    assert torch.equal(run(model, "llama"), expected)


WRONG_VALUES = {
    **dict.fromkeys([torch.int8, torch.int64, torch.uint8, torch.bool, torch.complex64], "of dtype [A-Z]+[0-9]*;"),
    **dict.fromkeys([torch.float8_e4m3fn, torch.float8_e5m2], "of dtype F8_E"),
    **dict.fromkeys([float("nan"), float("inf"), -float("inf")], "values that are not finite"),
}


@pytest.mark.parametrize("kind", ["steering", *OTHER_KINDS])
@pytest.mark.parametrize("wrong", WRONG_VALUES, ids=str)
def test_values_that_are_no_finite_floats_are_refused(kind, wrong, base, adapter, saved) -> None:
    before, (name, original) = state(base), min(load_file(saved[kind] / WEIGHTS).items())
    is_dtype = isinstance(wrong, torch.dtype)
    tensor = original.to(wrong) if is_dtype else original.index_fill(0, torch.tensor(0), wrong)
    folder = adapter(kind, {name: tensor})
    for api in APIS if kind != "lora" else ["load_any_adapter"]:
        with pytest.raises(ActshiftError, match=WRONG_VALUES[wrong]) as caught:
            APIS[api](base, folder)
        assert name.removeprefix(P) in str(caught.value)
        assert_unchanged(base, before)


def test_a_float64_above_every_float32_is_refused(base, adapter, saved) -> None:
    name, original = min(load_file(saved["steering"] / WEIGHTS).items())
    folder = adapter("steering", {name: torch.full_like(original, 1e300, dtype=torch.float64)})
    for api in APIS:
        with pytest.raises(ActshiftError, match="values that are not finite"):
            APIS[api](base, folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_load(dtype, base, adapter, saved) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(saved["steering"] / WEIGHTS).items()}
    model = load_adapter(base, adapter("steering", tensors))
    loaded = next(p for name, p in model.named_parameters() if "lora_steer" in name)
    assert torch.equal(loaded, next(iter(load_file(saved["steering"] / WEIGHTS).values())).to(dtype).float())


BASE_CHANGING = [
    *({"init_lora_weights": init} for init in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")),
    {"layer_replication": [[0, 2], [0, 2]]},
    {"megatron_config": {"a": 1}, "megatron_core": "evil"},
    {"kasa_config": {"beta": 1e-4}},
    {"r": 10**9},
    {"r": 5000},
    {"rank_pattern": {"q_proj": 60_000}},
    {"target_modules": "(q"},
    {"target_parameters": ["q_proj.weight"]},
]


@pytest.mark.parametrize("kind", ["joint", "lora"])
@pytest.mark.parametrize("config", BASE_CHANGING, ids=lambda config: next(iter(config)))
def test_a_lora_config_that_changes_the_base_or_takes_all_memory_is_refused(config, kind, base, adapter) -> None:
    before = state(base)
    with pytest.raises(ActshiftError) as caught:
        load_any_adapter(base, adapter(kind, **config))
    assert str(caught.value).isprintable() and "nexpected" not in str(caught.value)
    assert_unchanged(base, before)


@pytest.mark.parametrize(
    "name", ["model", "layers", "layers.0", "0", "actshift", "down", "weight", "default", "s.1", "lora_steer"]
)
def test_modules_to_save_that_contain_the_adapter_are_refused(name, base, adapter) -> None:
    before = state(base)
    with pytest.raises(ActshiftError, match=r"modules_to_save .* which the adapter itself uses"):
        attach(base, SteeringConfig(rank=2, modules_to_save=[name]))
    with pytest.raises(ActshiftError, match="modules_to_save"):
        load_adapter(base, adapter("steering", modules_to_save=[name]))
    assert_unchanged(base, before)


@pytest.mark.parametrize(
    "names", [["lm_head"], ["embed_tokens"], ["norm"], ["mlp"], ["self_attn"], ["input_layernorm"]]
)
def test_modules_to_save_are_gone_when_the_adapter_is(names, base, tmp_path) -> None:
    expected, before = run(base, "llama"), state(base)
    model = attach(base, SteeringConfig(rank=2, modules_to_save=names))
    randomise(model)
    model.save_pretrained(str(tmp_path))
    base = load_adapter(model, str(tmp_path), "again").unload()
    model = load_adapter(base, str(tmp_path))
    assert not torch.equal(run(model.eval(), "llama"), expected)
    with model.disable_adapter():
        assert torch.equal(run(model, "llama"), expected)
    unloaded = model.unload()
    assert torch.equal(run(unloaded, "llama"), expected)
    assert_unchanged(unloaded, before)


def test_a_file_without_a_saved_module_is_refused(base, adapter) -> None:
    with pytest.raises(ActshiftError, match=r"lacks tensor 'lm_head\.weight'"):
        load_adapter(base, adapter("steering", modules_to_save=["lm_head"]))


def test_another_adapter_is_not_loaded_over_an_existing_one(base, adapter) -> None:
    model = attach(base, SteeringConfig(rank=2))
    folder = adapter("steering", positions={"where": "prompt"})
    with pytest.raises(ActshiftError, match="holds another adapter than the attached one"):
        model.load_adapter(folder, "default")
    for load in (load_adapter, load_any_adapter):
        with pytest.raises(ActshiftError, match="already has an adapter 'default'"):
            load(model, folder)
    model.load_adapter(folder, "other")


def huge_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write((64 * 2**20).to_bytes(8, "little"))
        file.truncate(65 * 2**20)


def bad_offsets(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({f"{P}a": entry, f"{P}b": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


BOUNDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "huge config": (lambda folder: os.truncate(folder / CONFIG, 10**8), "has 100,000,000 bytes"),
    "deep config": (lambda folder: (folder / CONFIG).write_text("[" * 10**5), "nested too deeply"),
    "list": (lambda folder: (folder / CONFIG).write_text("[]"), "is not the config of an adapter"),
    "long number": (lambda folder: (folder / CONFIG).write_text('{"peft_type":' + "9" * 5000 + "}"), "not valid JSON"),
    "binary": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe{}"), "not valid JSON"),
    "huge header": (lambda folder: huge_header(folder / WEIGHTS), "has a header of 67,108,864 bytes"),
    "overlapping": (lambda folder: bad_offsets(folder / WEIGHTS), "is damaged"),
    "pickle": (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "holds no adapter_model"),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_files_of_hostile_size_or_form_are_refused_in_seconds(case, base, adapter) -> None:
    change, message = BOUNDS[case]
    folder = adapter("steering")
    change(Path(folder))
    start = time.perf_counter()
    for load in (read_config, SteeringConfig.from_pretrained, lambda folder: load_any_adapter(base, folder)):
        with pytest.raises(ActshiftError, match=message):
            load(folder)
    assert time.perf_counter() - start < 3


def test_configs_of_hostile_size_are_refused_before_memory_is_allocated(base) -> None:
    for config in (
        {"layers": range(10**7)},
        {"layers": range(10**30)},
        {"interventions": [{}] * 10**5},
        {"rank": 10**9},
        {"rank": 10**5000},
        {"adapter": {"kind": "head_vector", "heads": range(10**9)}, "site": "attention_heads"},
    ):
        with pytest.raises(ActshiftError):
            attach(base, SteeringConfig(**config))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("site", ["post_block", "post_mlp", "attention_heads"])
def test_a_float8_host_does_not_round_the_first_weights(site, dtype, base) -> None:
    torch.manual_seed(0)
    plain = {name: p.clone() for name, p in attach(fresh_model("llama"), SteeringConfig(rank=2)).named_parameters()}
    torch.manual_seed(0)
    for module in base.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.to(dtype)
    model = attach(base.to(dtype), SteeringConfig(rank=2, site=site))
    fresh = [p for p in model.parameters() if p.requires_grad]
    expected = [p for name, p in plain.items() if "lora_steer" in name]
    assert all(torch.equal(p, other) for p, other in zip(fresh, expected, strict=True))


SECOND = [SteeringConfig, JointConfig]


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_get_peft_model_is_refused_and_the_first_adapter_stays(kind, second, base) -> None:
    model = get_peft_model(base, KINDS[kind]())
    randomise(model)
    before, config = run(model.eval(), "llama"), model.peft_config["default"]
    message = "use model.add_adapter" if kind != "lora" else "merge it first with model.merge_and_unload"
    for again in (model, base):
        with pytest.raises(ActshiftError, match=message):
            get_peft_model(again, second())
    with pytest.raises(ActshiftError, match=message):
        get_peft_model(model, second(), "other")
    assert torch.equal(run(model, "llama"), before) and model.peft_config == {"default": config}


NAMES = ["", "a.b", "../x", "a/b", "a\\b", "\x1b[31m", "\ud800", "keys", "type", "training", "__base__", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_torch_or_the_file_system_cannot_use_are_refused(name, base, adapter) -> None:
    before = state(base)
    for attempt in (
        lambda: attach(base, SteeringConfig(), name),
        lambda: load_adapter(base, adapter("steering"), name),
    ):
        with pytest.raises(ActshiftError, match="An adapter cannot be called") as caught:
            attempt()
        assert str(caught.value).isprintable()
    assert_unchanged(base, before)


@pytest.mark.parametrize("name", ["naïve", "名前", "my adapter", "lora", "a"])
def test_other_names_can_be_saved_and_loaded(name, base, saved, tmp_path) -> None:
    model = attach(base, SteeringConfig(rank=2), name)
    randomise(model)
    expected = run(model.eval(), "llama")
    model.save_pretrained(str(tmp_path))
    other = AutoModelForCausalLM.from_pretrained(saved["base"])
    assert torch.equal(run(load_adapter(other, str(tmp_path / name), name).eval(), "llama"), expected)


@pytest.mark.parametrize("name", [5, None, ["x"]])
def test_names_of_another_type_are_refused(name, base, adapter) -> None:
    for attempt in (lambda: attach(base, SteeringConfig(), name), lambda: load_adapter(base, adapter("lora"), name)):
        with pytest.raises(ActshiftError, match="adapter_name must be text"):
            attempt()


def test_a_classifier_with_hostile_metrics_gets_plain_class_names(tmp_path) -> None:
    model = AutoModelForSequenceClassification.from_config(LlamaConfig(**TINY, num_labels=3, pad_token_id=0))
    attach(model, SteeringConfig(rank=2, task_type="SEQ_CLS")).save_pretrained(str(tmp_path))
    labels = ["5", "[1, 2, 3]", '"abc"', '["a", "b"]', '["a", "b", "\\u001b[31m"]', "null"]
    for metrics in (
        "[]",
        "5",
        "{",
        "[" * 10**5,
        '{"head": 5}',
        *(f'{{"head": {{"labels": {text}}}}}' for text in labels),
    ):
        (tmp_path / "metrics.json").write_text(metrics)
        assert saved_head(str(tmp_path)).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("kind", KINDS)
def test_fields_that_are_read_before_loading_are_checked(kind, adapter) -> None:
    for name in (5, ["x"], "a\0b", True):
        with pytest.raises(ActshiftError, match="base_model_name_or_path must be text"):
            base_model_of(adapter(kind, base_model_name_or_path=name))
    for field in ({"task_type": ["SEQ_CLS"]}, {"task_type": "SEQ_CLS", "modules_to_save": 5}):
        with pytest.raises(ActshiftError, match=f"{[*field][-1]} must be"):
            saved_head(adapter(kind, **field))


def test_no_module_that_a_config_names_is_imported(adapter, tmp_path, monkeypatch) -> None:
    (tmp_path / "planted_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {"base_model_class": "X", "parent_library": "planted_module"}
    with pytest.raises(ValueError, match="not in the import allowlist"):
        AutoPeftModel.from_pretrained(adapter("steering", auto_mapping=mapping))
    with pytest.raises(ActshiftError, match="sets megatron_config"):
        load_any_adapter(
            fresh_model("llama"), adapter("lora", megatron_config={"a": 1}, megatron_core="planted_module")
        )
