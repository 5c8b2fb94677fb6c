"""Backward passes count targets, keep groups apart, restore the model, and reject unusable data."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError
from actshift.gradients import BackwardStats
from tests.gradients.parity import batches_of, model_of, run_tapped
from tests.zoo import ARCHITECTURES, example_inputs


def test_weights_of_the_groups_are_means_over_their_targets():
    stats = BackwardStats(targets=(2, 0, 6), batches=3, loss=0.0)
    assert stats.shares.tolist() == [1 / 8] * 3
    assert [weights.tolist() for weights in stats.without()] == [[0, 0, 1 / 6], [1 / 2, 0, 0]]
    assert [weights.tolist() for weights in stats.alone()] == [[1 / 2, 0, 0], [0, 0, 1 / 6]]
    assert BackwardStats(targets=(4,), batches=1, loss=0.0).without() == []


def test_leaving_out_a_group_equals_a_run_without_its_batches():
    model, batches = model_of(), batches_of(3)
    stats, taps = run_tapped(model, batches, groups=3)
    for group, shares in enumerate(stats.without()):
        rest, rest_taps = run_tapped(model, [batch for number, batch in enumerate(batches) if number != group])
        assert torch.allclose(taps[0].matrix.matrix(shares), rest_taps[0].matrix.matrix(rest.shares), atol=1e-8)


def test_the_model_is_restored_after_success_and_after_an_error():
    model = model_of().train()
    model.transformer.h[1].eval()
    model.lm_head.weight.requires_grad_(False)
    model.transformer.ln_f.weight.grad = kept = torch.ones_like(model.transformer.ln_f.weight)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    requires_grad = [parameter.requires_grad for parameter in model.parameters()]
    run_tapped(model, batches_of(1))
    with pytest.raises(ActshiftError, match="no labels"):
        run_tapped(model, [{"input_ids": torch.ones(1, 3, dtype=torch.long)}])
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == requires_grad
    assert model.transformer.ln_f.weight.grad is kept and kept.eq(1).all()
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_every_label_of_an_encoder_is_a_target():
    model = ARCHITECTURES["bert"]().double()
    inputs = example_inputs("bert")
    labels = inputs["input_ids"].clone()
    labels[:, 2:] = -100
    assert run_tapped(model, [{**inputs, "labels": labels}])[0].targets == (4,)
    vision = ARCHITECTURES["vit"]().double()
    pixels = {name: value.double() for name, value in example_inputs("vit").items()}
    assert run_tapped(vision, [{**pixels, "labels": torch.tensor([1, 2])}])[0].targets == (2,)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "There are no batches"),
        ([{"input_ids": torch.tensor([[5]]), "labels": torch.tensor([[5]])}], "no token to predict"),
        ([{"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[5, -100]])}], "no token to predict"),
        ([{"input_ids": torch.tensor([[5, 6]])}], "no labels"),
    ],
)
def test_data_without_a_target_is_rejected(batches, message):
    with pytest.raises(ActshiftError, match=message):
        run_tapped(model_of(), batches)


def test_gradients_that_are_all_zero_are_rejected():
    model = model_of()
    torch.nn.init.zeros_(model.lm_head.weight)
    with pytest.raises(ActshiftError, match="Every gradient is zero"):
        run_tapped(model, batches_of(1))


def test_a_loss_that_overflows_is_reported_with_the_fix():
    model = model_of().half()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight.fill_(6e4)
    with pytest.raises(ActshiftError, match=r"overflows the range of its dtype.*load it in float32"):
        run_tapped(model, batches_of(1))
