from __future__ import annotations

import pytest
import torch

from actshift import (
    Ablation,
    Adapter,
    HeadVector,
    JointConfig,
    JoLA,
    LoReFT,
    SteeringConfig,
    Vector,
    attach,
    set_strength,
)
from actshift.analysis.folding import merged, weight_updates
from tests.analysis.folding.conftest import LINEAR, logits_of, steered_model
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES

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


@pytest.mark.parametrize(("adapter", "site"), EXACT, ids=lambda value: getattr(value, "kind", value))
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "falcon", "bloom"])
def test_a_merged_model_has_the_logits_of_the_steered_model(name: str, adapter: Adapter, site: str) -> None:
    model = steered_model(name, adapter, site)
    steered, base = logits_of(model, name), logits_of(ARCHITECTURES[name](), name)
    plain = merged(model)
    torch.testing.assert_close(logits_of(plain, name), steered, rtol=0, atol=1e-5)
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
        ("llama", Ablation(), "post_mlp"),
    ],
)
def test_attention_adapters_merge_also_if_the_mlp_could_not(name: str, adapter: Adapter, site: str) -> None:
    model = steered_model(name, adapter, site)
    steered = logits_of(model, name)
    torch.testing.assert_close(logits_of(merged(model), name), steered, rtol=0, atol=1e-5)


def test_strength_is_included() -> None:
    model = steered_model("llama")
    set_strength(model, 0.5)
    steered = logits_of(model, "llama")
    torch.testing.assert_close(logits_of(merged(model), "llama"), steered, rtol=0, atol=1e-5)


def test_a_joint_adapter_merges_with_its_lora() -> None:
    steering = SteeringConfig(adapter=LINEAR, site="post_mlp")
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2, steering=steering, orthogonality=None))
    randomise(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_A" in key or "lora_B" in key:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    steered = logits_of(model.eval(), "llama")
    torch.testing.assert_close(logits_of(merged(model), "llama"), steered, rtol=0, atol=2e-5)


def test_weight_updates_describe_each_map() -> None:
    updates = weight_updates(steered_model("llama", LoReFT(2), "post_mlp"))
    first = updates.updates[0]
    assert (first.layer, first.weight, first.rank) == (0, "model.layers.0.mlp.down_proj", 2)
    assert "‖ΔW_eff‖" in str(updates)
