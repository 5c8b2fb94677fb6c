"""Batches in which each row has its own adapter, computed as one batched product."""

from collections.abc import Sequence
from itertools import groupby
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actshift.adapters.functional import Factors, add_shift, stack_shifts
from actshift.errors import ActshiftError
from actshift.sites import Positions


class ActiveAdapter(NamedTuple):
    """The module that computes an adapter's shift at one layer, with its strength and positions."""

    name: str
    shift: nn.Module
    strength: float
    positions: Positions


class RowAdapters:
    """The adapters of a batch's rows at one layer, for one call of the model.

    Adapters with the same activation, positions and dtype are one product over all rows, with zeros in the other rows.
    Any that is no low-rank map is called on its own rows. Consecutive rows of one adapter are merged into a long row.
    """

    def __init__(self, names: Sequence[str], adapters: Sequence[ActiveAdapter]) -> None:
        self.batch = len(names)
        self.run = gcd(*(len(list(run)) for _, run in groupby(names)))
        self.names = list(names[:: self.run])
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

    def steer(self, x: Tensor, prompts: Any) -> Tensor:
        """Return `x [rows, ..., d]` or `[rows * tokens, d]` with each row's shift added; `prompts` is the layer's."""
        selected = self._selected_rows(x.shape[0])
        names = self.names if selected is None else [self.names[row] for row in selected]
        rows = x.reshape(len(names), -1, x.shape[-1])
        steered = rows

        def mask(positions: Positions) -> Tensor | None:
            return None if positions.where == "all" else prompts.mask_for(positions, x).reshape(len(names), -1, 1)

        for positions, product in self.products:
            shifted = (product if selected is None else product.of_rows(selected)).add(steered, rows)
            where = mask(positions)
            steered = shifted if where is None else torch.where(where, shifted, steered)
        for name, adapter in self.called.items():
            index = torch.tensor([row for row, own in enumerate(names) if own == name], device=x.device)
            shift = _scaled_shift(adapter.shift, rows[index], adapter.strength).expand(len(index), *rows.shape[1:])
            if (where := mask(adapter.positions)) is not None:
                shift = torch.where(where[index], shift, torch.zeros_like(shift))
            steered = steered.index_add(0, index, shift)
        return steered.reshape(x.shape)

    def _selected_rows(self, count: int) -> list[int] | None:
        """Return which merged rows the `count` leading entries of an activation belong to; None means all in order."""
        # OPT flattens batch and sequence before its MLP, and under beam search an encoder sees each prompt once.
        if count % self.batch and self.batch % count:
            problem = f"adapter_names has {self.batch} entries for a batch of {count} rows"
            raise ActshiftError(f"{problem}; give one name for each row ('__base__' for no adapter).")
        if count % len(self.names) == 0:
            return None
        return [row * (self.batch // count) // self.run for row in range(count)]


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
