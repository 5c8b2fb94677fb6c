"""The orthogonality rule and the steps of torch's optimisers, on a small model of constrained layers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from transformers import Adafactor

from actshift.orthogonality import Orthogonality, orthonormal_basis, project_rows, violation
from actshift.tuner.optimizer_hooks import STEPS
from tests.tuner.constrained_layers import Lora, Stack, step

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 1e-1, momentum=0.9),
    "adafactor": lambda p: Adafactor(p, 1e-2, relative_step=False, scale_parameter=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rule_holds_after_every_step_of_every_optimizer(name):
    model = Stack()
    optimizer = OPTIMIZERS[name](model.parameters())
    before, first = model[0].down.clone(), model.loss().item()
    for _ in range(8):
        step(model, optimizer)
        assert model.read_violation() <= 1e-6
        assert model[0].written.any()
    assert not torch.equal(model[0].down, before)
    assert model.write_violation() > 1e-2  # the write side is free
    assert model.loss().item() < first


def test_rule_holds_after_lbfgs_steps_with_a_closure():
    model = Stack()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
        assert model.read_violation() <= 1e-6


def test_rule_holds_in_bfloat16():
    model = Stack().to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(8):
        step(model, optimizer)
        assert 0 < model.read_violation() <= 1e-2


@pytest.mark.parametrize("side", ["write", "both"])
def test_rule_constrains_the_chosen_side(side):
    model = Stack(Orthogonality(side))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(5):
        step(model, optimizer)
        assert model.write_violation() <= 1e-6
        assert (model.read_violation() <= 1e-6) == (side == "both")


def test_a_step_changes_weights_only_by_the_projection():
    ruled, free = Stack(), Stack(None)
    free.load_state_dict(ruled.state_dict())
    for model in (ruled, free):
        step(model, torch.optim.SGD(model.parameters(), 0.5))
    for ruled_layer, free_layer in zip(ruled, free, strict=True):
        assert torch.equal(ruled_layer.written, free_layer.written)
        assert torch.equal(ruled_layer.up, free_layer.up)
        assert torch.equal(ruled_layer.down, project_rows(free_layer.down, orthonormal_basis(free_layer.written)))


def test_w_down_is_bit_identical_while_b_is_zero():
    ruled, free = Stack(), Stack(None)
    free.load_state_dict(ruled.state_dict())
    for model in (ruled, free):
        step(model, torch.optim.AdamW(model.halves()[1], 1e-2))  # no optimiser trains B
    for ruled_layer, free_layer in zip(ruled, free, strict=True):
        assert not ruled_layer.written.any()
        assert torch.equal(ruled_layer.down, free_layer.down)


def test_rank_deficient_b_removes_only_its_span():
    model = Stack()
    layer = model[0]
    direction = torch.randn(24)
    with torch.no_grad():
        layer.writers[0].lora_B["default"].weight.copy_(torch.outer(direction, torch.tensor([1.0, -2.0])))
    for parameter in layer.writers.parameters():
        parameter.requires_grad_(False)
    before = layer.down.detach().double()
    torch.optim.SGD(model.parameters(), 0.0).step()
    unit = direction.double() / direction.norm()
    torch.testing.assert_close(layer.down.double(), before - torch.outer(before @ unit, unit), atol=1e-7, rtol=0)


@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_half_stays_unchanged(frozen):
    model = Stack()
    step(model, torch.optim.AdamW(model.parameters(), 1e-2))
    for parameter in model.halves()[frozen]:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in model.halves()[frozen]]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    step(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.halves()[frozen], strict=True))
    assert (model.read_violation() <= 1e-6) == (frozen == 0)  # with 1, W_down is frozen


def test_optimiser_of_other_parameters_changes_nothing():
    model, other = Stack(), torch.nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    before = copy.deepcopy(model.state_dict())
    other(torch.ones(2)).sum().backward()
    torch.optim.SGD(other.parameters(), 1.0).step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("every", [1, 2])
def test_halves_in_two_optimizers(order, every):
    model = Stack(Orthogonality(every=every))
    optimizers = [torch.optim.AdamW(half, rate) for half, rate in zip(model.halves(), (1e-2, 3e-2), strict=True)]
    for count in range(1, 7):
        model.loss().backward()
        for number in order:
            optimizers[number].step()
            assert every == 2 or model.read_violation() <= 1e-6
        model.zero_grad()
        assert (model.read_violation() <= 1e-6) == (count % every == 0)


def test_rule_every_k_steps_and_a_resumed_run_continues_the_count():
    whole = Stack(Orthogonality(every=3))
    optimizer = torch.optim.AdamW(whole.parameters(), 1e-2)
    for count in range(1, 8):
        step(whole, optimizer)
        assert (whole.read_violation() <= 1e-6) == (count % 3 == 0)
        if count == 4:
            saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    assert optimizer.param_groups[0][STEPS] == 7

    resumed = Stack(Orthogonality(every=3))
    optimizer = torch.optim.AdamW(resumed.parameters(), 1e-2)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    for _ in range(3):
        step(resumed, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("rule", [None, Orthogonality(every="epoch"), Orthogonality(penalty=1.0)])
def test_rules_without_projection_at_steps(rule):
    model = Stack(rule)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        step(model, optimizer)
    assert model.read_violation() > 1e-3


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_constrained_by_its_own_lora(clone):
    model = Stack()
    step(model, torch.optim.AdamW(model.parameters(), 1e-2))
    twin = clone(model)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(twin.parameters(), 1e-2)
    for _ in range(3):
        step(twin, optimizer)
    assert twin.read_violation() <= 1e-6
    assert not torch.equal(twin[0].written, model[0].written)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_optimiser_that_calls_super_step_counts_one_step():
    class Louder(torch.optim.AdamW):
        def step(self, closure=None):  # torch hooks this class and its parent
            super().step(closure)
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.add_(1e-3)

    model = Stack(Orthogonality(every=2))
    optimizer = Louder(model.parameters(), 1e-2)
    for count in range(1, 5):
        step(model, optimizer)
        assert optimizer.param_groups[0][STEPS] == count
        assert (model.read_violation() <= 1e-6) == (count % 2 == 0)


def test_rule_holds_after_a_failed_step():
    model = Stack()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    step(model, optimizer)
    assert model.read_violation() <= 1e-6


def test_layers_without_lora_stay_unchanged():
    model = Stack()
    step(model, torch.optim.AdamW(model.parameters(), 1e-2))
    for layer in model:
        for writer in layer.writers:
            del writer.lora_B["default"]
        layer.constraints["default"] = type(layer.constraints["default"])(Orthogonality(), [Lora(2)])
    before = model[0].down.clone()
    torch.optim.SGD([layer.down for layer in model], 1.0).step()
    assert torch.equal(model[0].down, before)


def test_rule_does_not_raise_in_a_diverged_run():
    model = Stack()
    optimizer = torch.optim.SGD(model.parameters(), float("inf"))
    for _ in range(2):
        step(model, optimizer)
    assert not torch.isfinite(model[0].written).all()


def test_penalty_lowers_the_overlap():
    figures = {}
    for penalty in (None, 0.01, 1.0):
        torch.manual_seed(0)
        model = Stack(Orthogonality(penalty=penalty) if penalty else None)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for _ in range(60):
            step(model, optimizer)
        figures[penalty] = sum(violation(layer.down, layer.written) for layer in model)
    assert figures[1.0] < figures[0.01] < figures[None]
    assert figures[1.0] < 0.3 * figures[None]


def test_gradient_of_the_penalty_matches_the_formula():
    ruled, free = Stack(Orthogonality("both", penalty=0.7)), Stack(None)
    with torch.no_grad():
        for parameter in ruled.parameters():
            parameter.normal_()
    free.load_state_dict(ruled.state_dict())
    for model in (ruled, free):
        step(model, torch.optim.SGD(model.parameters(), 0.0))
    for ruled_layer, free_layer in zip(ruled, free, strict=True):
        left, *_ = torch.linalg.svd(ruled_layer.written.double(), full_matrices=False)
        within = (left @ left.T).float()
        torch.testing.assert_close(
            ruled_layer.down.grad - free_layer.down.grad, 1.4 * ruled_layer.down @ within, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            ruled_layer.up.grad - free_layer.up.grad, 1.4 * within @ ruled_layer.up, atol=1e-4, rtol=1e-4
        )
        parameters = zip(ruled_layer.writers.parameters(), free_layer.writers.parameters(), strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in parameters)
