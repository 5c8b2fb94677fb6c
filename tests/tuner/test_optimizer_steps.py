"""Penalties and promises of the adapters around the steps of torch's optimisers."""

from __future__ import annotations

import gc

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from actshift.adapters import Shift
from actshift.tuner import optimizer_hooks as optimizer_steps
from actshift.tuner.optimizer_hooks import watch


class Penalised(Shift):
    """Penalty p², whose gradient is 2p; counts its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(3.0))
        self.other = nn.Parameter(torch.tensor(5.0))
        self.steps = 0

    def penalty(self) -> Tensor:
        return self.value**2 + self.other**2

    def after_step(self) -> None:
        self.steps += 1


class Layer(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.lora_steer = nn.ModuleDict({name: Penalised() for name in names})
        self.constraints = {}
        watch(self)  # type: ignore[arg-type]


@pytest.fixture
def shift():
    layer = Layer("default")
    yield layer.lora_steer["default"]
    del layer


def test_the_gradient_of_the_penalty_is_added_once(shift):
    optimizer = torch.optim.SGD(shift.parameters(), 1.0)
    (10 * shift.value).backward()
    optimizer.step()
    assert shift.value.grad.item() == 10 + 2 * 3
    assert shift.other.grad.item() == 2 * 5  # there was no gradient before
    assert shift.value.item() == 3 - 16
    assert shift.steps == 1


def test_accumulation_adds_it_once_a_step(shift):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    optimizer = accelerator.prepare(torch.optim.SGD(shift.parameters(), 1.0))
    model = nn.Module()
    for _ in range(4):
        with accelerator.accumulate(model):
            accelerator.backward(10 * shift.value)
            optimizer.step()
            if not accelerator.sync_gradients:
                assert shift.steps == 0
    assert shift.steps == 1
    assert shift.value.item() == 3 - (10 + 2 * 3)


def test_two_optimizers_add_each_their_own_part(shift):
    first, second = torch.optim.SGD([shift.value], 1.0), torch.optim.SGD([shift.other], 1.0)
    first.step()
    assert (shift.value.grad.item(), shift.other.grad) == (6, None)
    second.step()
    assert (shift.value.grad.item(), shift.other.grad.item()) == (6, 10)


def test_frozen_adapters_are_not_touched(shift):
    shift.value.requires_grad_(False)
    shift.other.requires_grad_(False)
    torch.optim.SGD(shift.parameters(), 1.0).step()
    assert (shift.value.grad, shift.other.grad, shift.steps) == (None, None, 0)


def test_several_adapters_on_one_layer():
    layer = Layer("trained", "inactive", "elsewhere")
    trained, inactive, elsewhere = layer.lora_steer.values()
    inactive.requires_grad_(False)
    torch.optim.SGD([*trained.parameters(), *inactive.parameters()], 1.0).step()
    assert [shift.steps for shift in (trained, inactive, elsewhere)] == [1, 0, 0]
    assert elsewhere.value.grad is None


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_gets_the_penalty_at_each_call(shift, by_name):
    optimizer = torch.optim.LBFGS(shift.parameters(), lr=1.0, max_iter=20, line_search_fn="strong_wolfe")
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = (shift.value - 1) ** 2 + (shift.other - 1) ** 2
        loss.backward()
        losses.append(loss.item())
        return loss

    returned = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    # min (p - 1)² + p² is at 1/2, which no gradient of the loss alone would stop at
    assert shift.value.item() == pytest.approx(0.5, abs=1e-4)
    assert shift.other.item() == pytest.approx(0.5, abs=1e-4)
    assert returned.item() == pytest.approx(losses[0] + 3**2 + 5**2)
    assert shift.steps == 1


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler(shift, fused):
    # a fused optimiser unscales by itself: its gradients are still scaled when the hook sees them
    optimizer = torch.optim.SGD(shift.parameters(), 1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(shift.value * float("inf")).backward()
    scaler.step(optimizer)
    assert shift.value.item() == 3  # it skips a step whose gradients overflow
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(10 * shift.value).backward()
    scaler.step(optimizer)
    assert (shift.value.item(), shift.other.item()) == (3 - 16, 5 - 10)
    assert fused or shift.steps == 1


def test_watching_keeps_nothing_alive(shift):
    layer = Layer("default")
    assert id(layer) in optimizer_steps._layers
    number = id(layer)
    del layer
    gc.collect()
    assert number not in optimizer_steps._layers


def test_hooks_are_registered_once():
    from torch.optim import optimizer

    Layer("one"), Layer("two")
    hooks = list(optimizer._global_optimizer_pre_hooks.values()) + list(optimizer._global_optimizer_post_hooks.values())
    assert hooks.count(optimizer_steps.before_step) == hooks.count(optimizer_steps.after_step) == 1
