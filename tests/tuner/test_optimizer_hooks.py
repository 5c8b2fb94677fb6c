"""Penalties before, and constraints after, the steps of torch's optimisers."""

from __future__ import annotations

import gc

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from actshift.adapters import Shift
from actshift.tuner import optimizer_hooks
from actshift.tuner.optimizer_hooks import watch


class Penalised(Shift):
    """A shift with the penalty p², whose gradient is 2p, that counts its steps."""

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


def test_gradient_accumulation_adds_the_penalty_once_per_step(shift):
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


def test_each_of_two_optimisers_adds_the_penalty_of_its_parameters(shift):
    first, second = torch.optim.SGD([shift.value], 1.0), torch.optim.SGD([shift.other], 1.0)
    first.step()
    assert (shift.value.grad.item(), shift.other.grad) == (6, None)
    second.step()
    assert (shift.value.grad.item(), shift.other.grad.item()) == (6, 10)


def test_frozen_adapters_stay_unchanged(shift):
    shift.value.requires_grad_(False)
    shift.other.requires_grad_(False)
    torch.optim.SGD(shift.parameters(), 1.0).step()
    assert (shift.value.grad, shift.other.grad, shift.steps) == (None, None, 0)


def test_only_trained_adapters_of_a_layer_are_changed():
    layer = Layer("trained", "inactive", "elsewhere")
    trained, inactive, elsewhere = layer.lora_steer.values()
    inactive.requires_grad_(False)
    torch.optim.SGD([*trained.parameters(), *inactive.parameters()], 1.0).step()
    assert [shift.steps for shift in (trained, inactive, elsewhere)] == [1, 0, 0]
    assert elsewhere.value.grad is None


@pytest.mark.parametrize("by_name", [False, True])
def test_every_call_of_a_closure_adds_the_penalty(shift, by_name):
    optimizer = torch.optim.LBFGS(shift.parameters(), lr=1.0, max_iter=20, line_search_fn="strong_wolfe")
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = (shift.value - 1) ** 2 + (shift.other - 1) ** 2
        loss.backward()
        losses.append(loss.item())
        return loss

    returned = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    # (p - 1)² + p² has its minimum at 1/2; the loss alone has it at 1
    assert shift.value.item() == pytest.approx(0.5, abs=1e-4)
    assert shift.other.item() == pytest.approx(0.5, abs=1e-4)
    assert returned.item() == pytest.approx(losses[0] + 3**2 + 5**2)
    assert shift.steps == 1


@pytest.mark.parametrize("fused", [False, True])
def test_penalties_with_a_gradient_scaler(shift, fused):
    # A fused optimiser unscales gradients itself, so they are still scaled in the hook.
    optimizer = torch.optim.SGD(shift.parameters(), 1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(shift.value * float("inf")).backward()
    scaler.step(optimizer)
    assert shift.value.item() == 3  # the scaler skips a step with overflowing gradients
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(10 * shift.value).backward()
    scaler.step(optimizer)
    assert (shift.value.item(), shift.other.item()) == (3 - 16, 5 - 10)
    assert fused or shift.steps == 1


def test_watched_layers_can_be_garbage_collected(shift):
    layer = Layer("default")
    assert id(layer) in optimizer_hooks._layers
    identity = id(layer)
    del layer
    gc.collect()
    assert identity not in optimizer_hooks._layers


def test_hooks_are_registered_once():
    from torch.optim import optimizer

    Layer("one"), Layer("two")
    hooks = list(optimizer._global_optimizer_pre_hooks.values()) + list(optimizer._global_optimizer_post_hooks.values())
    assert hooks.count(optimizer_hooks.before_step) == hooks.count(optimizer_hooks.after_step) == 1
