from __future__ import annotations

import pytest
import torch

from actshift import (
    ActshiftError,
    Adapter,
    HeadVector,
    JointConfig,
    JoLA,
    LoReFT,
    LowRank,
    Positions,
    SteeringConfig,
    Vector,
    attach,
    set_strength,
)
from actshift.analysis.folding import merged, plan_folds, weight_updates
from actshift.analysis.folding.merge import effective_update
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES, example_inputs

LINEAR = LowRank(rank=2, activation=None)
EXACT = [
    (LINEAR, "post_mlp"),
    (LINEAR, "post_attention"),
    (LoReFT(2), "post_mlp"),
    (Vector(), "post_mlp"),
    (Vector(), "post_attention"),
    (Vector(), "post_block"),
    (HeadVector(), "attention_heads"),
    (JoLA(), "attention_heads"),
]


def _steered(name: str, adapter: Adapter = LINEAR, site: str = "post_mlp", **config):
    model = attach(ARCHITECTURES[name](), SteeringConfig(adapter=adapter, site=site, **config))
    randomise(model)
    return model.eval()


@torch.no_grad()
def _logits(model, name: str) -> torch.Tensor:
    return model(**example_inputs(name)).logits


@pytest.mark.parametrize(("adapter", "site"), EXACT, ids=lambda value: getattr(value, "kind", value))
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "falcon", "bloom"])
def test_a_merged_model_has_the_logits_of_the_steered_model(name: str, adapter: Adapter, site: str) -> None:
    model = _steered(name, adapter, site)
    steered, base = _logits(model, name), _logits(ARCHITECTURES[name](), name)
    plain = merged(model)
    torch.testing.assert_close(_logits(plain, name), steered, rtol=0, atol=1e-5)
    assert (steered - base).abs().max() > 0.1
    assert type(plain) is type(ARCHITECTURES[name]())
    assert not any("actshift" in key or "lora" in key for key in plain.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())


@pytest.mark.parametrize(
    ("name", "adapter", "site"),
    [
        ("qwen3", JoLA(), "attention_heads"),
        ("gemma2", JoLA(), "attention_heads"),
        ("mixtral", LINEAR, "post_attention"),
    ],
)
def test_attention_adapters_merge_also_if_the_mlp_could_not(name: str, adapter: Adapter, site: str) -> None:
    model = _steered(name, adapter, site)
    steered = _logits(model, name)
    torch.testing.assert_close(_logits(merged(model), name), steered, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "adapter", "site", "config", "message"),
    [
        ("llama", LINEAR, "post_block", {}, "the skip carries past every weight of the block"),
        ("llama", LowRank(rank=2), "post_mlp", {}, "is not linear"),
        ("llama", LINEAR, "post_mlp", {"positions": Positions.prompt()}, "at some tokens only"),
        ("qwen2", Vector(), "post_mlp", {}, "has no bias, and the config of Qwen2ForCausalLM has no switch"),
        ("gemma2", LINEAR, "post_mlp", {}, "after a norm or a scale that follows model.layers.0.mlp.down_proj"),
        ("gemma2", Vector(), "post_block", {}, "after a norm or a scale"),
        ("olmo2", LINEAR, "post_attention", {}, "after a norm or a scale"),
        ("mixtral", LINEAR, "post_mlp", {}, "the outputs of experts"),
    ],
)
def test_adapters_that_cannot_be_merged_are_rejected_and_the_model_is_unchanged(
    name, adapter, site, config, message
) -> None:
    model = _steered(name, adapter, site, **config)
    before = _logits(model, name) if not config else None
    with pytest.raises(ActshiftError, match=message):
        merged(model)
    if before is not None:
        assert torch.equal(_logits(model, name), before)


def test_strength_is_included() -> None:
    model = _steered("llama")
    set_strength(model, 0.5)
    steered = _logits(model, "llama")
    torch.testing.assert_close(_logits(merged(model), "llama"), steered, rtol=0, atol=1e-5)


def test_a_joint_adapter_merges_with_its_lora() -> None:
    steering = SteeringConfig(adapter=LINEAR, site="post_mlp")
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2, steering=steering, orthogonality=None))
    randomise(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_A" in key or "lora_B" in key:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    steered = _logits(model.eval(), "llama")
    torch.testing.assert_close(_logits(merged(model), "llama"), steered, rtol=0, atol=2e-5)


def test_loreft_after_the_mlp_is_the_papers_weight_update() -> None:
    model = _steered("llama", LoReFT(2), "post_mlp")
    fold = plan_folds(model)[0]
    weight = fold.module.get_parameter("weight")
    host = model.get_submodule("base_model.model.model.layers.0.mlp.actshift").lora_steer["default"]
    expected = (host.write.T @ host.read - host.write.T @ host.write) @ weight
    torch.testing.assert_close(effective_update(fold).float(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fold.shift.constant.float(), host.write.T @ host.bias, rtol=1e-4, atol=1e-5)
    [first, *_] = weight_updates(model).updates
    assert (first.layer, first.weight, first.rank) == (0, "model.layers.0.mlp.down_proj", 2)
    assert "‖ΔW_eff‖" in str(weight_updates(model))
