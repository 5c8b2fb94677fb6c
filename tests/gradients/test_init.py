"""An adapter that begins along the gradient: a no-op, whose first step is the best one."""

from __future__ import annotations

import math

import pytest
import torch

from actshift import ActshiftError, JointConfig, LowRank, Positions, SteeringConfig, attach, gradient_init, load_adapter
from actshift.tuner import steering_layers
from tests.gradients.parity import batches_of, mean_loss, model_of, slope

RANK = 3


def fresh(activation=None, **config):
    return attach(model_of(), SteeringConfig(adapter=LowRank(RANK, activation, init="gradient"), **config))


def shifts(model):
    return [layer.lora_steer["default"] for layer in steering_layers(model).values()]


@pytest.mark.parametrize("activation", [None, "silu", "tanh"])
@pytest.mark.parametrize("site", ["post_block", "post_mlp", "attention_heads"])
def test_the_model_does_not_change(activation, site):
    model, batches = fresh(activation, site=site), batches_of(2)
    before, former = mean_loss(model, batches), [shift.down.weight.clone() for shift in shifts(model)]
    gradient_init(model, batches)
    assert mean_loss(model, batches) == before
    for shift, old in zip(shifts(model), former, strict=True):
        assert not torch.equal(shift.down.weight, old)
        gram = shift.down.weight @ shift.down.weight.T  # a² I: orthogonal directions at one scale
        assert torch.allclose(gram, gram[0, 0] * torch.eye(RANK, dtype=gram.dtype), atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_first_gradient_step_is_the_best_of_its_rank():
    """The gradient by W_up is a G V; a step against it lowers the loss by what √(σ_1² + … + σ_r²) promises."""
    model, batches = fresh(layers=[1]), batches_of(2)
    gradient_init(model, batches)
    [shift] = shifts(model)
    down = shift.down.weight.detach().clone()
    counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
    loss = sum(count * model(**batch).loss for count, batch in zip(counts, batches, strict=True)) / sum(counts)
    [gradient] = torch.autograd.grad(loss, [shift.up.weight])
    direction = gradient / (gradient @ down).norm()  # a unit step of the product

    def move(size):
        with torch.no_grad():
            shift.up.weight.copy_(-size * direction)

    promised = (gradient @ down).norm() / (down[0] @ down[0])  # ‖a² U Σ Vᵀ‖ / a²
    assert slope(model, batches, move) == pytest.approx(promised.item(), rel=1e-6)


def test_the_code_is_as_large_as_that_of_the_default():
    model, batches = fresh(layers=[0]), batches_of(3)
    gradient_init(model, batches)
    [(layer, shift)] = [(layer, layer.lora_steer["default"]) for layer in steering_layers(model).values()]
    seen = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    handle.remove()
    x = torch.cat(seen)
    code = (x @ shift.down.weight.T).square().mean()
    assert code.item() == pytest.approx((x.square().sum(-1).mean() / (3 * 32)).item())


def test_padding_counts_for_nothing():
    from tests.gradients.test_backward import padded

    plain, wide = fresh(), fresh()
    batches = batches_of(2)
    gradient_init(plain, batches)
    gradient_init(wide, [padded(batch, 0, 3) for batch in batches])
    for one, other in zip(shifts(plain), shifts(wide), strict=True):
        assert torch.allclose(one.down.weight.abs(), other.down.weight.abs(), atol=1e-6)


def test_only_steered_positions_count():
    """What is steered at the prompt alone begins with what the prompt's tokens say."""
    everywhere, prompt = fresh(), fresh(positions=Positions.prompt())
    for model in (everywhere, prompt):
        gradient_init(model, batches_of(2))
    assert not torch.allclose(shifts(everywhere)[0].down.weight.abs(), shifts(prompt)[0].down.weight.abs())


def test_a_saved_one_loads_without_data(tmp_path):
    model = fresh("silu")
    gradient_init(model, batches_of(1))
    for shift in shifts(model):
        torch.nn.init.normal_(shift.up.weight)
    model.save_pretrained(str(tmp_path))
    loaded = load_adapter(model_of(), str(tmp_path))
    assert loaded.peft_config["default"].init == "gradient"
    assert mean_loss(loaded, batches_of(1)) == pytest.approx(mean_loss(model, batches_of(1)), rel=1e-6)


def test_in_a_joint_adapter_it_is_the_steering_half():
    model = attach(model_of(), JointConfig(r=2, steering=SteeringConfig(rank=RANK, init="gradient")))
    gradient_init(model, batches_of(1))
    assert all(math.isclose(s.down.weight[0].norm(), s.down.weight[1].norm(), rel_tol=1e-6) for s in shifts(model))


def test_what_cannot_be_is_refused():
    with pytest.raises(ActshiftError, match="has no adapter 'default' with init=\"gradient\""):
        gradient_init(attach(model_of(), SteeringConfig(rank=2)), batches_of(1))
    with pytest.raises(ActshiftError, match="has no adapter"):
        gradient_init(model_of(), batches_of(1))
    trained = fresh()
    before = shifts(trained)[0].down.weight.clone()
    torch.nn.init.ones_(shifts(trained)[0].up.weight)
    with pytest.raises(ActshiftError, match="trained already"):
        gradient_init(trained, batches_of(1))
    with pytest.raises(ActshiftError, match="no batches"):
        gradient_init(model := fresh(), [])
    assert torch.equal(shifts(trained)[0].down.weight, before) and shifts(model)
