"""JointConfig: refused values, the stored file, and each half alone, with and without actshift."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actshift import (
    ActshiftError,
    Intervention,
    JointConfig,
    LoReFT,
    LowRank,
    Orthogonality,
    SteeringConfig,
    Vector,
    attach,
    halves,
    load_adapter,
    save_half,
    set_halves,
)
from actshift.tuner import read_config, steering_layers
from tests.contract.cases import randomise

IDS = torch.arange(3, 15)[None]


def config(**fields) -> JointConfig:
    return JointConfig(**{"r": 2, "steering": SteeringConfig(rank=4), "task_type": "CAUSAL_LM", **fields})


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


@pytest.fixture
def joint(base):
    model = attach(base, config())
    randomise(model)
    return model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_alhpa": 2}, "Unknown field 'lora_alhpa' of JointConfig .did you mean 'lora_alpha'"),
        ({"use_dora": True}, "Unknown field 'use_dora'"),
        ({"rank": 4}, "Unknown field 'rank'"),
        ({"target_modules": None}, "needs target_modules for its LoRA half"),
        ({"steering": LowRank()}, "steering must be a SteeringConfig"),
        ({"orthogonality": True}, "orthogonality must be Orthogonality"),
        ({"steering": SteeringConfig(site="post_mlp"), "orthogonality": {"sied": "read"}}, "Unknown field 'sied'"),
    ],
)
def test_invalid_fields_raise_one_line_errors(fields, message):
    with pytest.raises(ActshiftError, match=message) as caught:
        JointConfig(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["q_proj"]}, "nothing to be orthogonal to.*layers.0.mlp.down_proj"),
        ({"steering": SteeringConfig(adapter=Vector())}, r"Vector\(\) reads through no matrix"),
        ({"steering": SteeringConfig(adapter=LoReFT(rank=2))}, "LoReFT.* reads through no matrix"),
        ({"steering": SteeringConfig(site="post_attention")}, "applies to post_block and post_mlp"),
        ({"steering": SteeringConfig(layers=[7])}, "layer 7 is out of range"),
    ],
)
def test_config_that_does_not_fit_leaves_the_model_unchanged(base, fields, message):
    before = [name for name, _ in base.named_modules()]
    with pytest.raises(ActshiftError, match=message) as caught:
        attach(base, config(**fields))
    assert "\n" not in str(caught.value)
    assert [name for name, _ in base.named_modules()] == before


def test_write_side_and_no_rule_accept_configs_that_the_read_side_refuses(base):
    free = config(target_modules=["q_proj"], orthogonality=None)
    attach(copy.deepcopy(base), config(steering=SteeringConfig(adapter=Vector()), orthogonality={"side": "write"}))
    assert attach(base, free).peft_config["default"].orthogonality is None


def test_steered_block_without_lora_gives_a_warning(base):
    with pytest.warns(UserWarning, match="does not apply to blocks 1, 2"):
        attach(base, config(target_modules=["q_proj", "down_proj"], layers_to_transform=[0]))


def test_config_survives_copies_json_and_pickle(tmp_path, base):
    several = [Intervention(LowRank(rank=2), layers=(0,)), Intervention(LowRank(rank=4), "post_mlp", layers=(1,))]
    for original in (config(), config(steering=SteeringConfig(interventions=several), orthogonality=None)):
        for copied in (
            copy.deepcopy(original),
            pickle.loads(pickle.dumps(original)),
            dataclasses.replace(original),
            SteeringConfig(**json.loads(json.dumps(original.to_dict()))),
        ):
            assert type(copied) is JointConfig
            assert copied.to_dict() == original.to_dict()
            assert copied.all_interventions == original.all_interventions


def test_file_reads_back_as_a_joint_config(joint, tmp_path):
    joint.save_pretrained(str(tmp_path))
    stored = read_config(str(tmp_path))
    assert isinstance(stored, JointConfig)
    assert (stored.r, stored.orthogonality, stored.all_interventions[0].adapter) == (
        2,
        Orthogonality(),
        LowRank(rank=4),
    )
    assert set(stored.target_modules) >= {"down_proj", "q_proj"}


def test_file_without_one_lora_tensor_is_refused_and_the_model_stays_unchanged(joint, base_folder, tmp_path):
    joint.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    fresh = AutoModelForCausalLM.from_pretrained(base_folder)
    before = [name for name, _ in fresh.named_modules()]
    with pytest.raises(ActshiftError, match=r"lacks tensor 'model.layers.1.mlp.up_proj.lora_B.weight'"):
        load_adapter(fresh, str(tmp_path))
    assert [name for name, _ in fresh.named_modules()] == before


def test_each_half_equals_its_saved_adapter(joint, base_folder, tmp_path):
    for half in ("weights", "activations"):
        save_half(joint, half, tmp_path / half)
    with halves(joint, "weights"):
        weights = logits(joint)
    with halves(joint, "activations"):
        activations = logits(joint)
    fresh = AutoModelForCausalLM.from_pretrained(base_folder)
    assert torch.equal(logits(load_adapter(fresh, str(tmp_path / "activations"))), activations)
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), tmp_path / "weights")
    assert torch.equal(logits(lora), weights)
    torch.testing.assert_close(logits(lora.merge_and_unload()), weights, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_lora_half_loads_and_merges_without_importing_actshift(joint, base_folder, tmp_path):
    save_half(joint, "weights", tmp_path / "lora")
    code = f"""
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(base_folder)!r})
model = PeftModel.from_pretrained(base, {str(tmp_path / "lora")!r})
model.merge_and_unload()
assert not any(name.startswith("actshift") for name in sys.modules)
print(type(next(iter(model.peft_config.values()))).__name__)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "LoraConfig"


def test_unknown_halves_and_adapters_are_refused(joint, base, base_folder, tmp_path):
    with pytest.raises(ActshiftError, match=r"Unknown half 'weigths' .did you mean 'weights'"):
        set_halves(joint, "weigths")
    with pytest.raises(ActshiftError, match="no joint adapter 'other'; there are default"):
        set_halves(joint, "both", "other")
    steered = attach(AutoModelForCausalLM.from_pretrained(base_folder), SteeringConfig(rank=2))
    with pytest.raises(ActshiftError, match="carries no joint adapter"):
        set_halves(steered, "weights")
    with pytest.raises(ActshiftError, match="not a joint one"):
        save_half(steered, "weights", tmp_path / "half")
    with pytest.raises(ActshiftError, match=r"Use one of weights, activations\."):
        save_half(joint, "both", tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_activating_an_adapter_activates_both_halves(joint):
    both = logits(joint)
    set_halves(joint, "activations")
    assert not torch.equal(logits(joint), both)
    joint.set_adapter("default")
    assert torch.equal(logits(joint), both)


def test_switching_halves_does_not_activate_a_second_adapter(joint):
    both = logits(joint)
    attach(joint, config(), "other")
    set_halves(joint, "weights")
    set_halves(joint, "both")
    assert torch.equal(logits(joint), both)


def test_rows_of_a_batch_can_use_a_joint_a_steering_and_no_adapter(joint, base_folder):
    attach(joint, SteeringConfig(rank=2), "steering")
    randomise(joint)
    both, bare = logits(joint), logits(AutoModelForCausalLM.from_pretrained(base_folder))
    joint.set_adapter("steering")
    steered = logits(joint)
    rows = IDS.repeat(3, 1)
    with torch.no_grad():
        mixed = joint(rows, adapter_names=["default", "steering", "__base__"]).logits
    for row, alone in zip(mixed, (both, steered, bare), strict=True):
        torch.testing.assert_close(row[None], alone, atol=1e-5, rtol=1e-5)


def test_later_lora_wraps_the_host_and_keeps_its_steering():
    from tests.zoo import ARCHITECTURES

    model = attach(ARCHITECTURES["opt"](), SteeringConfig(rank=2, site="post_mlp"), "first")  # its host is fc2
    randomise(model)
    steered = logits(model)
    attach(model, config(steering=SteeringConfig(rank=4, site="post_mlp")), "second")
    assert not [name for name in steering_layers(model) if "base_layer" in name]
    model.set_adapter("first")
    assert torch.equal(logits(model), steered)


def test_native_transformers_loads_a_joint_adapter(base_folder, joint, tmp_path):
    both = logits(joint)
    joint.save_pretrained(str(tmp_path))
    native = AutoModelForCausalLM.from_pretrained(base_folder)
    native.load_adapter(str(tmp_path))
    assert torch.equal(logits(native), both)
    set_halves(native, "weights")
    with halves(joint, "weights"):
        assert torch.equal(logits(native), logits(joint))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(str(tmp_path))), both)


def test_merge_error_names_save_half(joint):
    with pytest.raises(ActshiftError, match="save_half"):
        joint.merge_and_unload()


def test_lora_on_experts_that_can_write_every_direction_is_refused():
    from tests.zoo import ARCHITECTURES

    joint = JointConfig(r=8, target_parameters=["experts.down_proj"], steering=SteeringConfig(rank=2))
    with pytest.raises(ActshiftError, match="can write 32 directions of 32"):
        attach(ARCHITECTURES["mixtral"](), joint)


def test_experts_with_swapped_lora_matrices_are_constrained_on_the_stream_side():
    from actshift import orthogonality_violations
    from tests.zoo import MORE

    experts = {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]}
    joint = JointConfig(r=2, steering=SteeringConfig(rank=2), **experts)
    model = attach(MORE["llama4_text"](), joint)
    randomise(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(IDS).last_hidden_state.square().mean().backward()
    optimizer.step()
    assert max(orthogonality_violations(model).values()) < 1e-5
    writer = next(iter(steering_layers(model).values())).constraints["default"].writers[0]
    assert writer.lora_A["default"].weight.shape == (8, 32)  # writes to the residual stream, as B does elsewhere
