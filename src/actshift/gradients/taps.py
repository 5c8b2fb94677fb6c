"""Taps: hooks that sum gradient × activation over tokens during the backward pass, without storing either."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.gradients.sketch import ExactSum, Sketch
from actshift.sites import Host, find_blocks, hidden_of, with_hidden
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices

EXACT_AREA = 512 * 512  # a matrix with up to this many elements is summed exactly, a larger one is sketched

ADAPTER_PART = re.compile(r"\.base_layer$|(^|\.)(lora_|actshift)")  # names in a block that belong to an adapter

OVERFLOW = "the model overflows the range of its dtype, or its weights are damaged; load it in float32 or bfloat16"

Mask = Callable[[Tensor], "Tensor | None"]
"""Maps activations `[..., d]` to the tokens to count, `[..., 1]` bool, or to None for all tokens."""


@dataclass
class BatchGroup:
    """State shared by all taps of a run: the group of the current batch, and the weight of its loss."""

    groups: int
    group: int = 0
    weight: float = 1.0


class Tap:
    """The sums G = Σ g xᵀ (`matrix`) and Σ g (`vector [groups, outputs]`) over tokens, for each group of batches.

    x is an activation `[..., inputs]`, and g the gradient of the loss at an activation `[..., outputs]`. Both are
    multiplied in float32 (float64 for a float64 model) as soon as g is known, and then released.
    """

    def __init__(self, name: str, exact_area: int = EXACT_AREA) -> None:
        self.name, self.exact_area = name, exact_area
        self.matrix: ExactSum | Sketch | None = None
        self.vector: Tensor | None = None

    def watch(self, x: Tensor, y: Tensor, batch_group: BatchGroup, mask: Tensor | None = None) -> None:
        """Add `x` and the gradient at `y` to the sums in the backward pass; `mask [..., 1]` selects tokens."""
        if not torch.is_grad_enabled():  # the first of the two passes of a re-entrant checkpoint
            return
        x = x.detach()
        _require_grad(y)
        y.register_hook(lambda g: self._add(g, x, batch_group, mask))

    def _add(self, g: Tensor, x: Tensor, batch_group: BatchGroup, mask: Tensor | None) -> None:
        dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
        if mask is not None:
            g = torch.where(mask, g, 0)
        g = g.detach().flatten(0, -2).to(dtype) * batch_group.weight
        x = x.flatten(0, -2).to(g)
        if self.matrix is None or self.vector is None:
            sum_type = ExactSum if g.shape[-1] * x.shape[-1] <= self.exact_area else Sketch
            self.matrix = sum_type(g, x, batch_group.groups)
            self.vector = g.new_zeros(batch_group.groups, g.shape[-1])
        self.matrix.add(batch_group.group, g, x)
        self.vector[batch_group.group] += g.sum(0)

    def check(self) -> None:
        """Raise ActshiftError if the sums are not finite."""
        if self.vector is not None and not torch.isfinite(self.vector).all():
            raise ActshiftError(f"The gradients at {self.name} are not finite: {OVERFLOW}.")


def _require_grad(y: Tensor) -> None:
    """Start the autograd graph at `y` if everything before it is frozen."""
    if torch.is_grad_enabled() and not y.requires_grad:
        y.requires_grad_()


def tap_host(tap: Tap, host: Host, batch_group: BatchGroup) -> RemovableHandle:
    """Hook a tap into a site: g is the gradient at the activation x, as a shift added after all existing ones sees it.

    Source: this project, docs/method.md#gradient-initialisation.
    """

    def at_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = hidden_of(output)
        _require_grad(hidden)
        # Falcon adds the output of a branch to the skip in place, so the model continues with a copy.
        passed_on = hidden if host.site == "post_block" else hidden.clone()
        tap.watch(hidden, passed_on, batch_group)
        return with_hidden(output, passed_on)

    def at_input(module: nn.Module, args: tuple[Any, ...]) -> None:
        tap.watch(args[0], args[0], batch_group)

    if host.at_input:
        return host.module.register_forward_pre_hook(at_input)
    return host.module.register_forward_hook(at_output)


def tap_map(tap: Tap, module: nn.Module, batch_group: BatchGroup, mask: Mask | None = None) -> RemovableHandle:
    """Hook a tap into a module y = f(x), with g at y: G is then the gradient of the weight of a linear map."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        tap.watch(args[0], output, batch_group, mask(args[0]) if mask else None)

    return module.register_forward_hook(hook)


@dataclass(frozen=True)
class LinearMap:
    """A linear map, or a LoRA layer around one, called `part` in block `layer` and `name` in the model."""

    layer: int
    part: str
    name: str
    module: nn.Module
    inputs: int
    outputs: int


def linear_maps(model: nn.Module, layers: Sequence[int] | None = None, blocks: str | None = None) -> list[LinearMap]:
    """Return the linear maps of the selected blocks in model order, without stacked experts: these are not modules.

    Raises ActshiftError if the layers or blocks do not exist, as in `resolve`.

    >>> from actshift.demo import load_base
    >>> [linear.part for linear in linear_maps(load_base()[0], layers=[0])][:2]
    ['self_attn.q_proj', 'self_attn.k_proj']
    """
    model = unwrap(model)
    named_blocks = find_blocks(model, blocks)
    linears: list[LinearMap] = []
    for layer in block_indices(layers, len(named_blocks), type(model).__name__):
        block_name, block = named_blocks[layer]
        for part, module in block.named_modules():
            base = getattr(module, "base_layer", module)  # a LoRA layer stands for the map that it wraps
            if isinstance(base, nn.Linear | Conv1D) and not ADAPTER_PART.search(part):
                # The shape of the weight would not do: quantised weights are packed.
                linear = isinstance(base, nn.Linear)
                inputs, outputs = (base.in_features, base.out_features) if linear else (base.nx, base.nf)
                linears.append(LinearMap(layer, part, f"{block_name}.{part}", module, inputs, outputs))
    return linears
