from __future__ import annotations

import pytest
import torch

from actshift import Ablation, ActshiftError, GatedVector, LoReFT, LowRank, Positions, Vector, set_strength
from actshift.analysis.folding import merged, plan_folds
from actshift.analysis.folding.merge import effective_update
from actshift.analysis.folding.plan import affine_of
from actshift.tuner import steering_layers
from tests.analysis.folding.conftest import LINEAR, logits_of, steered_model


def test_an_affine_shift_is_read_off_at_its_strength() -> None:
    model = steered_model("llama", LowRank(rank=2, activation=None, bias=True))
    layer = next(iter(steering_layers(model).values()))
    shift = layer.lora_steer["default"]
    whole = affine_of(layer)
    torch.testing.assert_close(whole.matrix.float(), shift.up.weight @ shift.down.weight)
    set_strength(model, 0.5)
    torch.testing.assert_close(affine_of(layer).constant, whole.constant / 2)
    with model.disable_adapter():
        assert not affine_of(layer).matrix.any() and not plan_folds(model)
    assert affine_of(next(iter(steering_layers(steered_model("llama", LowRank(rank=2))).values()))) is None


@pytest.mark.parametrize(
    ("name", "adapter", "site", "config", "message"),
    [
        ("llama", LINEAR, "post_block", {}, "the skip carries past every weight of the block"),
        ("llama", LowRank(rank=2), "post_mlp", {}, "is not linear"),
        ("llama", GatedVector(), "post_mlp", {}, "is not linear"),
        ("llama", Ablation(), "post_block", {}, "the skip carries past every weight of the block"),
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
    model = steered_model(name, adapter, site, **config)
    before = logits_of(model, name) if not config else None
    with pytest.raises(ActshiftError, match=message):
        merged(model)
    if before is not None:
        assert torch.equal(logits_of(model, name), before)


def test_loreft_after_the_mlp_is_the_papers_weight_update() -> None:
    model = steered_model("llama", LoReFT(2), "post_mlp")
    fold = plan_folds(model)[0]
    weight = fold.module.get_parameter("weight")
    host = model.get_submodule("base_model.model.model.layers.0.mlp.actshift").lora_steer["default"]
    expected = (host.write.T @ host.read - host.write.T @ host.write) @ weight
    torch.testing.assert_close(effective_update(fold).float(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fold.shift.constant.float(), host.write.T @ host.bias, rtol=1e-4, atol=1e-5)
