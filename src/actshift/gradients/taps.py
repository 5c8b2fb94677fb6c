"""Taps: where gradients meet activations in one backward pass, and are summed without being kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.gradients.sketch import Exact, Sketch
from actshift.sites import Host, find_blocks, hidden_of, with_hidden
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices

EXACT_AREA = 512 * 512
"""The largest matrix that is summed itself; a larger one is sketched."""

Mask = Callable[[Tensor], "Tensor | None"]


class BatchGroup:
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

    def watch(self, x: Tensor, y: Tensor, clock: BatchGroup, mask: Tensor | None = None) -> None:
        """Have the gradient by `y` summed with `x` when it comes. `mask [..., 1]` chooses tokens; None is all."""
        if not torch.is_grad_enabled():  # the first of the two passes of a re-entrant checkpoint
            return
        x = x.detach()
        begin_graph(y)
        y.register_hook(lambda g: self._add(g, x, clock, mask))

    def _add(self, g: Tensor, x: Tensor, clock: BatchGroup, mask: Tensor | None) -> None:
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


def tap_host(tap: Tap, host: Host, clock: BatchGroup) -> RemovableHandle:
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


def tap_map(tap: Tap, module: nn.Module, clock: BatchGroup, mask: Mask | None = None) -> RemovableHandle:
    """Tap a module y = f(x): for a linear map G is the gradient of its weight; `mask` chooses tokens by x."""

    def between(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        tap.watch(args[0], output, clock, mask(args[0]) if mask else None)

    return module.register_forward_hook(between)


@dataclass(frozen=True)
class LinearMap:
    """A weight `[outputs, inputs]` of block `layer`: `part` is its name in the block, `name` that in the model.

    `module` is the map, or the LoRA layer round it.
    """

    layer: int
    part: str
    name: str
    module: nn.Module
    inputs: int
    outputs: int


def linear_maps(model: nn.Module, layers: Sequence[int] | None = None, blocks: str | None = None) -> list[LinearMap]:
    """Return the linear maps of the chosen blocks, in the order of the model: PEFT's "all-linear".

    Stacked experts are none of them: their weights are no modules. Raises what `resolve` raises.

    >>> from actshift.demo import load_base
    >>> [linear.part for linear in linear_maps(load_base()[0], layers=[0])][:2]
    ['self_attn.q_proj', 'self_attn.k_proj']
    """
    model = unwrap(model)
    found = find_blocks(model, blocks)
    return [
        linear
        for layer in block_indices(layers, len(found), type(model).__name__)
        for linear in _of_block(layer, *found[layer])
    ]


def _of_block(layer: int, name: str, block: nn.Module) -> list[LinearMap]:
    linears = []
    for part, module in block.named_modules():
        base = getattr(module, "base_layer", module)  # a LoRA layer answers for the map it is wrapped round
        if not isinstance(base, nn.Linear | Conv1D) or _is_adapters(part):
            continue
        # Not by the weight's shape, which a quantised one packs.
        inputs, outputs = (base.in_features, base.out_features) if isinstance(base, nn.Linear) else (base.nx, base.nf)
        linears.append(LinearMap(layer, part, f"{name}.{part}", module, inputs, outputs))
    return linears


def _is_adapters(part: str) -> bool:
    return part.endswith(".base_layer") or any(word.startswith(("lora_", "actshift")) for word in part.split("."))
