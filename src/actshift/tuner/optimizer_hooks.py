"""Global torch hooks that add penalties before every optimiser step and enforce constraints after it.

torch calls them around each `optimizer.step()`, so no trainer needs a callback. Penalties are added to the gradients,
which is also correct with gradient accumulation. Only parameters that this optimiser trains are changed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from actshift.adapters import Shift
from actshift.tuner.joint.constraint import Constraint, OrthogonalPair, overlap, project

STEPS = "actshift_steps"  # in the first parameter group, whose state dict a resumed run loads to continue the count

_layers: WeakValueDictionary[int, Any] = WeakValueDictionary()  # its fixed order keeps sums bit-identical
_stepping: WeakSet[Optimizer] = WeakSet()  # a subclass that calls super().step() runs the hooks twice


def watch(layer: nn.Module) -> None:
    """Apply the hooks to the adapters of this steering layer for as long as the layer exists."""
    _register_hooks()
    _layers[id(layer)] = layer


@cache
def _register_hooks() -> None:
    register_optimizer_step_pre_hook(before_step)
    register_optimizer_step_post_hook(after_step)


def before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Global pre-hook: add the penalties to the gradients, or to the gradients that the step's closure computes."""
    if not _layers or optimizer in _stepping:
        return None
    _stepping.add(optimizer)
    adapters = [adapter for adapter in _adapters_in(optimizer) if adapter.parameters]
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        _add_penalties(optimizer, adapters)
        return None
    return args[:1], kwargs | {"closure": partial(_with_penalties, closure, optimizer, adapters)}


@torch.no_grad()
def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Global post-hook: restore the constraints of the adapters, then project if the rule is due."""
    if not _layers:
        return
    first = optimizer in _stepping
    _stepping.discard(optimizer)
    adapters = list(_adapters_in(optimizer))
    if first:
        shifts = [adapter.shift for adapter in adapters if adapter.parameters]
        for shift_class in dict.fromkeys(map(type, shifts)):
            shift_class.after_step_of_all([shift for shift in shifts if type(shift) is shift_class])
    due = _due_periods(optimizer, {adapter.period for adapter in adapters}, count=first)
    project(adapter.pair() for adapter in adapters if adapter.period in due)


@dataclass(frozen=True, eq=False)
class _TrainedAdapter:
    """One adapter of one layer that an optimiser trains, or whose LoRA-B matrices it trains."""

    shift: Shift
    columns: list[Tensor]
    constraint: Constraint | None
    parameters: list[Tensor]  # those of the shift that the optimiser trains; empty if it trains only LoRA-B matrices

    @property
    def period(self) -> Any:
        return self.constraint.period if self.constraint else None

    def pair(self) -> OrthogonalPair:
        assert self.constraint is not None
        rows = [rows for rows in self.constraint.rows(self.shift) if _parameter_of(rows).requires_grad]
        return OrthogonalPair(rows, self.columns)


def _adapters_in(optimizer: Optimizer) -> Iterator[_TrainedAdapter]:
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}

    def trained(tensors: Iterable[Tensor]) -> list[Tensor]:
        return [tensor for tensor in tensors if tensor.requires_grad and id(tensor) in optimized]

    for layer in list(_layers.values()):
        for name, module in layer.lora_steer.items():
            shift, constraint = cast(Shift, module), layer.constraints.get(name)
            columns = constraint.columns(name) if constraint else []
            parameters = trained(shift.parameters())
            if parameters or trained(map(_parameter_of, columns)):
                yield _TrainedAdapter(shift, columns, constraint, parameters)


def _parameter_of(view: Tensor) -> Tensor:
    return view if view._base is None else view._base


def _due_periods(optimizer: Optimizer, periods: set[Any], count: bool) -> set[Any]:
    """Return the periods that end at this step, and count the step if `count`."""
    steps = periods - {1, "epoch", None}
    if steps:
        group = optimizer.param_groups[0]
        group[STEPS] = group.get(STEPS, 0) + count
        steps = {period for period in steps if group[STEPS] % period == 0}
    return steps | (periods & {1})


def _with_penalties(closure: Callable[[], Any], optimizer: Optimizer, adapters: list[_TrainedAdapter]) -> Any:
    # A closure clears and recomputes the gradients, so the penalties are added after each of its calls.
    loss, penalty = closure(), _add_penalties(optimizer, adapters)
    return loss if penalty is None or loss is None else loss + penalty


@torch.enable_grad()
def _add_penalties(optimizer: Optimizer, adapters: list[_TrainedAdapter]) -> Tensor | None:
    """Add the gradients of all penalties to `.grad`. Return the sum of the penalties, or None without penalties."""
    terms = [term for adapter in adapters if (term := adapter.shift.penalty()) is not None]
    pairs_by_weight: dict[float, list[OrthogonalPair]] = defaultdict(list)
    for adapter in adapters:
        rule = adapter.constraint and adapter.constraint.orthogonality
        if rule and rule.penalty:
            pairs_by_weight[rule.penalty].append(adapter.pair())
    for weight, pairs in pairs_by_weight.items():
        terms += [weight * term for term in overlap(pairs)]
    terms = [term for term in terms if term.requires_grad]
    if not terms:
        return None
    total = torch.stack([term.to(terms[0]) for term in terms]).sum()
    parameters = [parameter for adapter in adapters for parameter in adapter.parameters]
    scale = getattr(optimizer, "grad_scale", None)  # gradients of a fused optimiser are still scaled by GradScaler
    for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
        if cast(Tensor | None, gradient) is not None:
            scaled = gradient if scale is None else gradient * scale.to(gradient.device)
            parameter.grad = scaled if parameter.grad is None else parameter.grad.add_(scaled)
    return total.detach()
