"""Gradient initialisation does not change the model, and makes the first gradient step the best of its rank."""

from __future__ import annotations

import math

import pytest
import torch

from actshift import ActshiftError, JointConfig, LowRank, Positions, SteeringConfig, attach, gradient_init, load_adapter
from actshift.tuner import steering_layers
from tests.gradients.parity import batches_of, loss_over, mean_loss, model_of, padded, slope
from tests.zoo import ARCHITECTURES

RANK = 3


def fresh(activation=None, **config):
    return attach(model_of(), SteeringConfig(adapter=LowRank(RANK, activation, init="gradient"), **config))


def shifts(model):
    return [layer.lora_steer["default"] for layer in steering_layers(model).values()]


@pytest.mark.parametrize("activation", [None, "silu", "tanh"])
@pytest.mark.parametrize("site", ["post_block", "post_mlp", "attention_heads"])
def test_w_down_changes_but_the_loss_does_not(activation, site):
    model, batches = fresh(activation, site=site), batches_of(2)
    loss, former = mean_loss(model, batches), [shift.down.weight.clone() for shift in shifts(model)]
    gradient_init(model, batches)
    assert mean_loss(model, batches) == loss
    for shift, old in zip(shifts(model), former, strict=True):
        assert not torch.equal(shift.down.weight, old)
        gram = shift.down.weight @ shift.down.weight.T  # a² I: orthogonal rows of one length
        assert torch.allclose(gram, gram[0, 0] * torch.eye(RANK, dtype=gram.dtype), atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_first_gradient_step_is_the_best_of_its_rank():
    """The gradient of W_up is a G V. A step against it lowers the loss at the rate √(σ_1² + … + σ_r²)."""
    model, batches = fresh(layers=[1]), batches_of(2)
    gradient_init(model, batches)
    [shift] = shifts(model)
    down = shift.down.weight.detach().clone()
    [gradient] = torch.autograd.grad(loss_over(model, batches), [shift.up.weight])
    direction = gradient / (gradient @ down).norm()  # a unit step of W_up W_down

    def move(size):
        with torch.no_grad():
            shift.up.weight.copy_(-size * direction)

    expected = (gradient @ down).norm() / (down[0] @ down[0])  # ‖a² U Σ Vᵀ‖ / a²
    assert slope(model, batches, move) == pytest.approx(expected.item(), rel=1e-6)


def test_the_code_has_the_mean_square_of_the_default_initialisation():
    model, batches = fresh(layers=[0]), batches_of(3)
    gradient_init(model, batches)
    [(layer, shift)] = [(layer, layer.lora_steer["default"]) for layer in steering_layers(model).values()]
    inputs = []
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    handle.remove()
    x = torch.cat(inputs)
    code = (x @ shift.down.weight.T).square().mean()
    assert code.item() == pytest.approx((x.square().sum(-1).mean() / (3 * 32)).item())


def test_padding_does_not_change_the_initialisation():
    plain, wide = fresh(), fresh()
    batches = batches_of(2)
    gradient_init(plain, batches)
    gradient_init(wide, [padded(batch, 0, 3) for batch in batches])
    for shift, other in zip(shifts(plain), shifts(wide), strict=True):
        assert torch.allclose(shift.down.weight.abs(), other.down.weight.abs(), atol=1e-6)


def test_only_steered_positions_count():
    everywhere, prompt = fresh(), fresh(positions=Positions.prompt())
    for model in (everywhere, prompt):
        gradient_init(model, batches_of(2))
    assert not torch.allclose(shifts(everywhere)[0].down.weight.abs(), shifts(prompt)[0].down.weight.abs())


def test_a_saved_adapter_loads_without_data(tmp_path):
    model = fresh("silu")
    gradient_init(model, batches_of(1))
    for shift in shifts(model):
        torch.nn.init.normal_(shift.up.weight)
    model.save_pretrained(str(tmp_path))
    loaded = load_adapter(model_of(), str(tmp_path))
    assert loaded.peft_config["default"].init == "gradient"
    assert mean_loss(loaded, batches_of(1)) == pytest.approx(mean_loss(model, batches_of(1)), rel=1e-6)


def test_the_steering_half_of_a_joint_adapter_is_initialised():
    model = attach(model_of(), JointConfig(r=2, steering=SteeringConfig(rank=RANK, init="gradient")))
    gradient_init(model, batches_of(1))
    norms = [shift.down.weight.detach().norm(dim=1) for shift in shifts(model)]
    assert all(math.isclose(norm[0], norm[1], rel_tol=1e-6) for norm in norms)


def test_a_missing_or_default_adapter_is_rejected():
    with pytest.raises(ActshiftError, match="has no adapter 'default' with init=\"gradient\""):
        gradient_init(attach(model_of(), SteeringConfig(rank=2)), batches_of(1))
    with pytest.raises(ActshiftError, match="has no adapter"):
        gradient_init(model_of(), batches_of(1))


def test_an_adapter_is_unchanged_when_it_is_trained_or_there_is_no_data():
    trained, untrained = fresh(), fresh()
    torch.nn.init.ones_(shifts(trained)[0].up.weight)
    for model, batches, message in ((trained, batches_of(1), "trained already"), (untrained, [], "no batches")):
        before = [shift.down.weight.clone() for shift in shifts(model)]
        with pytest.raises(ActshiftError, match=message):
            gradient_init(model, batches)
        assert all(torch.equal(s.down.weight, old) for s, old in zip(shifts(model), before, strict=True))


def test_a_rank_above_the_sketch_is_rejected():
    wide = ARCHITECTURES["gpt2"](n_embd=768, n_layer=1)
    model = attach(wide, SteeringConfig(adapter=LowRank(65, None, init="gradient")))
    with pytest.raises(ActshiftError, match=r"Rank 65 is too high.*at most 64 directions at a site of width 768"):
        gradient_init(model, batches_of(1))
