"""What happens around every step of every torch optimiser, so that no trainer has to know of it.

torch calls two global hooks around each `optimizer.step()`. Before the step the adapters' penalties are added to the
gradients, which is right under gradient accumulation too; after it the adapters restore what they promise, and the
orthogonality rule is enforced. Only what this optimiser holds and may train is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from actshift.adapters import Shift
from actshift.tuner.joint.constraint import Constraint, Pair, overlap, project

if TYPE_CHECKING:
    from actshift.tuner.layer import SteeringLayer


STEPS = "actshift_steps"
"""Where an optimiser's steps are counted for a rule of every k steps: in its first parameter group, which its state
dict saves, so that a resumed run goes on counting."""

_layers: WeakValueDictionary[int, SteeringLayer] = WeakValueDictionary()  # in order, so that sums repeat to the bit
_stepping: WeakSet[Optimizer] = WeakSet()  # a subclass that calls super().step() runs the hooks twice


def watch(layer: SteeringLayer) -> None:
    """Look after this layer's adapters at every optimiser step from now on, for as long as the layer lives."""
    _register_hooks()
    _layers[id(layer)] = layer


@cache
def _register_hooks() -> None:
    register_optimizer_step_pre_hook(before_step)
    register_optimizer_step_post_hook(after_step)


@dataclass(frozen=True, eq=False)
class _Adapter:
    """One adapter of one layer, seen by one optimiser."""

    shift: Shift
    columns: list[Tensor]
    constraint: Constraint | None
    trained: list[Tensor]
    """The shift's parameters that this optimiser trains; none where it trains only the LoRA-B's."""

    @property
    def period(self) -> Any:
        """When its rule projects, None for never."""
        return self.constraint.period if self.constraint else None

    def pair(self) -> Pair:
        """Return the constraint's two sides, without the rows of frozen parameters."""
        assert self.constraint is not None
        return Pair([rows for rows in self.constraint.rows(self.shift) if _parameter(rows).requires_grad], self.columns)


def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Global pre-hook: add the penalties to the gradients, or to what the step's closure will compute."""
    if not _layers or optimizer in _stepping:
        return None
    _stepping.add(optimizer)
    adapters = [adapter for adapter in _adapters_in(optimizer) if adapter.trained]
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        _add_penalties(optimizer, adapters)
        return None
    return args[:1], {**kwargs, "closure": _penalised(closure, optimizer, adapters)}


@torch.no_grad()
def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Global post-hook: let the adapters restore what they promise, then project where the rule is due."""
    if not _layers:
        return
    first = optimizer in _stepping
    _stepping.discard(optimizer)
    adapters = list(_adapters_in(optimizer))
    if first:
        kinds: dict[type[Shift], list[Shift]] = {}
        for adapter in adapters:
            if adapter.trained:
                kinds.setdefault(type(adapter.shift), []).append(adapter.shift)
        for kind, shifts in kinds.items():
            kind.after_step_of_all(shifts)
    due = _due(optimizer, {adapter.period for adapter in adapters}, count=first)
    project(adapter.pair() for adapter in adapters if adapter.period in due)


def _due(optimizer: Optimizer, periods: set[Any], count: bool) -> set[Any]:
    """Return which of the periods are over at this step of the optimiser."""
    steps = periods - {1, "epoch", None}
    if steps:
        group = optimizer.param_groups[0]
        group[STEPS] = group.get(STEPS, 0) + count
        steps = {period for period in steps if group[STEPS] % period == 0}
    return steps | (periods & {1})


def _adapters_in(optimizer: Optimizer) -> Iterator[_Adapter]:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}

    def trained(tensors: Any) -> list[Tensor]:
        return [tensor for tensor in tensors if tensor.requires_grad and id(tensor) in held]

    for layer in list(_layers.values()):
        for name, shift in layer.lora_steer.items():
            assert isinstance(shift, Shift)
            constraint = layer.constraints.get(name)
            columns = constraint.columns(name) if constraint else []
            own = trained(shift.parameters())
            if own or trained(map(_parameter, columns)):
                yield _Adapter(shift, columns, constraint, own)


def _parameter(view: Tensor) -> Tensor:
    return view if view._base is None else view._base


def _penalised(closure: Callable[[], Any], optimizer: Optimizer, adapters: list[_Adapter]) -> Callable[[], Any]:
    # A closure clears the gradients and computes them again, so the penalties go in behind it, at each of its calls.
    def with_penalties() -> Any:
        loss = closure()
        penalty = _add_penalties(optimizer, adapters)
        return loss if penalty is None or loss is None else loss + penalty

    return with_penalties


@torch.enable_grad()
def _add_penalties(optimizer: Optimizer, adapters: list[_Adapter]) -> Tensor | None:
    """Add the gradients of all penalties to `.grad`, and return their sum, or None where there is none."""
    terms = [term for adapter in adapters if (term := adapter.shift.penalty()) is not None]
    soft: dict[float, list[Pair]] = {}
    for adapter in adapters:
        rule = adapter.constraint and adapter.constraint.orthogonality
        if rule and rule.penalty:
            soft.setdefault(rule.penalty, []).append(adapter.pair())
    for weight, pairs in soft.items():
        terms += [weight * term for term in overlap(pairs)]
    terms = [term for term in terms if term.requires_grad]
    if not terms:
        return None
    total = torch.stack([term.to(terms[0]) for term in terms]).sum()
    parameters = [parameter for adapter in adapters for parameter in adapter.trained]
    scale = getattr(optimizer, "grad_scale", None)  # a fused optimiser gets its gradients still scaled by GradScaler
    for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
        if gradient is None:
            continue
        scaled = gradient if scale is None else gradient * scale.to(gradient.device)
        if parameter.grad is None:
            parameter.grad = scaled
        else:
            parameter.grad.add_(scaled)
    return total.detach()
