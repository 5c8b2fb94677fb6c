"""Taps: where gradients meet activations in one backward pass, and are summed without being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.errors import ActshiftError
from actshift.gradients.exact import Exact
from actshift.gradients.sketch import Sketch
from actshift.sites import Host, hidden_of, with_hidden

EXACT_AREA = 512 * 512
"""The largest matrix that is summed itself; a larger one is sketched."""

Mask = Callable[[Tensor], "Tensor | None"]


class Clock:
    """What all taps of a run share: the group of the batch that is running, and the weight of its loss."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.group = 0
        self.weight = 1.0


class Tap:
    """The sums G = Σ g xᵀ and Σ g of one place, over tokens, for each group of batches apart.

    x is an activation `[..., inputs]` and g the gradient of the loss by what is read there, `[..., outputs]`. They
    are multiplied in float32 (float64 where the model computes in it) as soon as g is known, and forgotten.
    """

    def __init__(self, name: str, exact_area: int = EXACT_AREA) -> None:
        self.name = name
        self.exact_area = exact_area
        self.matrix: Exact | Sketch | None = None
        self.vector: Tensor | None = None

    def watch(self, x: Tensor, y: Tensor, clock: Clock, mask: Tensor | None = None) -> None:
        """Have the gradient by `y` summed with `x` when it comes. `mask [..., 1]` chooses tokens; None is all."""
        if not torch.is_grad_enabled():  # the first of the two passes of a re-entrant checkpoint
            return
        x = x.detach()
        begin_graph(y)
        y.register_hook(lambda g: self._add(g, x, clock, mask))

    def _add(self, g: Tensor, x: Tensor, clock: Clock, mask: Tensor | None) -> None:
        dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
        if mask is not None:
            g = torch.where(mask, g, 0)
        g = g.detach().flatten(0, -2).to(dtype) * clock.weight
        x = x.flatten(0, -2).to(g)
        if self.matrix is None:
            kind = Exact if g.shape[-1] * x.shape[-1] <= self.exact_area else Sketch
            self.matrix = kind(g, x, clock.groups)
            self.vector = g.new_zeros(clock.groups, g.shape[-1])
        assert self.vector is not None
        self.matrix.add(clock.group, g, x)
        self.vector[clock.group] += g.sum(0)

    def check(self) -> None:
        """Raise ActshiftError where what was summed is not finite."""
        if self.vector is not None and not torch.isfinite(self.vector).all():
            raise ActshiftError(
                f"The gradients at {self.name} are not finite: the model overflows the range of its dtype, or its "
                "weights are damaged; load it in float32, or in bfloat16 where it is in float16."
            )


def begin_graph(y: Tensor) -> None:
    """Let the graph begin at `y`, where all before it is frozen."""
    if torch.is_grad_enabled() and not y.requires_grad:
        y.requires_grad_()


def tap_host(tap: Tap, host: Host, clock: Clock) -> RemovableHandle:
    """Tap a site, as a shift that is added there would see it: after the shifts that it has already."""

    def at_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = hidden_of(output)
        begin_graph(hidden)
        # A branch may be added to the skip in place (Falcon), so the model goes on with a copy.
        given = hidden if host.site == "post_block" else hidden.clone()
        tap.watch(hidden, given, clock)
        return with_hidden(output, given)

    def at_input(module: nn.Module, args: tuple[Any, ...]) -> None:
        tap.watch(args[0], args[0], clock)

    if host.at_input:
        return host.module.register_forward_pre_hook(at_input)
    return host.module.register_forward_hook(at_output)


def tap_map(tap: Tap, module: nn.Module, clock: Clock, mask: Mask | None = None) -> RemovableHandle:
    """Tap a module y = f(x): for a linear map G is the gradient of its weight; `mask` chooses tokens by x."""

    def between(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        tap.watch(args[0], output, clock, mask(args[0]) if mask else None)

    return module.register_forward_hook(between)
