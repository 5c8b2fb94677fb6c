"""Batches in which each row has its own adapter, computed as one batched product."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actshift.adapters.functional import Factors, add_shift, stack_shifts
from actshift.errors import ActshiftError
from actshift.sites import Positions
from actshift.tuner.token_axes import TokenShape, token_axes


class ActiveAdapter(NamedTuple):
    """The module that computes an adapter's shift at one layer, with its strength and positions."""

    name: str
    shift: nn.Module
    strength: float
    positions: Positions


class RowCall:
    """The adapters of a batch's rows, for one call of a model or of its `generate`.

    Hooks on the model, or on both halves of an encoder-decoder, store the shape of the tokens that it runs over.
    `inputs` is the number of rows that the user passes, if it is known before the model runs.
    """

    def __init__(self, names: Sequence[str], layers: Mapping[Any, "RowAdapters"], inputs: int | None) -> None:
        self.names, self.layers = names, layers
        self.shape: TokenShape | None = None
        self.expands = False
        if inputs is not None:
            self._check_batch(inputs)
            self.expands = True  # `generate` repeats these rows for beams and for several sequences

    def at(self, layer: Any) -> "RowAdapters | None":
        """Return the adapters at a layer, or None if it belongs to another model."""
        return self.layers.get(layer)

    def begin_forward(self, shape: TokenShape | None) -> None:
        """Store the shape of the tokens in a forward pass of the model or of one half."""
        if shape is not None:
            self._check_batch(shape[0])
        self.shape = shape

    def names_for(self, x: Tensor) -> list[str]:
        """Return a name for each row of `x [batch, ..., d]` or `[batch * seq, d]`, as PEFT's layers need it."""
        batch, seq = self.shape or (0, None)
        if x.shape[0] != batch and (x.ndim != 2 or seq is None or x.shape[0] != batch * seq):
            problem = f"a LoRA layer gets {list(x.shape)} in a call with {batch} rows"
            raise ActshiftError(f"adapter_names does not work here: {problem}. Run each adapter on its own rows.")
        return [name for name in self.names for _ in range(x.shape[0] // len(self.names))]

    def _check_batch(self, batch: int) -> None:
        if batch != len(self.names) and (not self.expands or batch % len(self.names)):
            problem = f"adapter_names has {len(self.names)} entries for a batch of {batch} rows"
            raise ActshiftError(f"{problem}; give one name for each row ('__base__' for no adapter).")


class RowAdapters:
    """The adapters of a batch's rows at one layer, for one call of the model.

    Adapters with the same activation, positions and dtype are one product over all rows, with zeros in the other rows.
    Any that is no low-rank map is called on its own rows. Consecutive rows of one adapter are merged into a long row.
    """

    def __init__(self, names: Sequence[str], adapters: Sequence[ActiveAdapter]) -> None:
        run = gcd(*(len(list(run)) for _, run in groupby(names)))
        self.names = list(names[::run])
        self.called: dict[str, ActiveAdapter] = {}
        groups: dict[Any, dict[int, tuple[Factors, float]]] = {}
        for adapter in adapters:
            factors = usable_factors(adapter.shift)
            if factors is None:
                self.called[adapter.name] = adapter
                continue
            group = groups.setdefault((adapter.positions, factors.activation, factors.down.dtype), {})
            group |= {row: (factors, adapter.strength) for row, name in enumerate(self.names) if name == adapter.name}
        self.products = [(key[0], stack_shifts(rows, len(self.names))) for key, rows in groups.items()]

    def steer(self, x: Tensor, layer: Any, shape: TokenShape | None) -> Tensor:
        """Return the activations `x [..., d]` of a layer with each row's shift added, for tokens of this shape.

        Raises:
            ActshiftError: if the axis of the rows is unknown.
        """
        if shape is None:
            raise ActshiftError("adapter_names needs a call of the whole model with a tensor of inputs.")
        axis = token_axes(x, shape, layer)[0]
        by_row = x if axis in (0, -1) else x.movedim(axis, 0)
        rows = by_row.reshape(len(self.names), -1, x.shape[-1])
        steered = rows

        def mask(positions: Positions) -> Tensor | None:
            if positions.where == "all":
                return None
            where = layer.mask_for(positions, x).expand(*x.shape[:-1], 1)
            return (where if axis in (0, -1) else where.movedim(axis, 0)).reshape(len(self.names), -1, 1)

        for positions, product in self.products:
            shifted = product.add(steered, rows)
            where = mask(positions)
            steered = shifted if where is None else torch.where(where, shifted, steered)
        for name, adapter in self.called.items():
            index = torch.tensor([row for row, own in enumerate(self.names) if own == name], device=x.device)
            shift = _scaled_shift(adapter.shift, rows[index], adapter.strength).expand(len(index), *rows.shape[1:])
            if (where := mask(adapter.positions)) is not None:
                shift = torch.where(where[index], shift, torch.zeros_like(shift))
            steered = steered.index_add(0, index, shift)
        return steered.reshape(by_row.shape) if axis in (0, -1) else steered.reshape(by_row.shape).movedim(0, axis)


def apply_shift(base: Tensor, shift: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return `base + s·Δ(x)` for `base` and `x` of shape `[..., d]`."""
    factors = usable_factors(shift)
    return base + _scaled_shift(shift, x, strength) if factors is None else add_shift(base, x, factors, strength)


def usable_factors(shift: Any) -> Factors | None:
    """Return the tensors of a shift, or None if its module must be called.

    That is so without a low-rank map, with hooks or offloaded tensors, and under torch.compile, which fuses it.
    """
    factors = None if torch.compiler.is_compiling() else shift.factors()
    return None if factors is None or factors.down.is_meta else factors


def _scaled_shift(shift: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return s·Δ(x) in the dtype of `x`, by calling the module; its shape broadcasts to the shape of `x`."""
    shifted = shift(x if torch.is_autocast_enabled(x.device.type) else x.to(next(shift.parameters()).dtype))
    return (shifted if strength == 1 else strength * shifted).to(x.dtype)
