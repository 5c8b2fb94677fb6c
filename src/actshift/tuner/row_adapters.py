"""A batch whose rows have adapters of their own: one batched product for all of them, not a pass for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actshift.adapters.factors import Factors
from actshift.adapters.functional import add_shift, stacked
from actshift.errors import ActshiftError
from actshift.sites import Positions


def usable_factors(adapter: Any) -> Factors | None:
    """Return the adapter's tensors, or None where it must be called instead.

    That is where it is no low-rank map, where somebody hooks on to its calls, where an offloader puts its tensors in
    place for the call only, and under a compiler, which fuses the plain formula by itself.
    """
    factors = None if torch.compiler.is_compiling() else adapter.factors()
    return None if factors is None or factors.down.is_meta else factors


def shift_of(adapter: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return s·Δ(x) in the dtype of `x`, by calling the adapter; it may only broadcast to the shape of `x`."""
    wanted = x if torch.is_autocast_enabled(x.device.type) else x.to(next(adapter.parameters()).dtype)
    shift = adapter(wanted)
    return (shift if strength == 1 else strength * shift).to(x.dtype)


def apply_shift(base: Tensor, adapter: nn.Module, x: Tensor, strength: float) -> Tensor:
    """Return `base + s·Δ(x)`, both `[..., d]`."""
    factors = usable_factors(adapter)
    return base + shift_of(adapter, x, strength) if factors is None else add_shift(base, x, factors, strength)


MaskFor = Callable[[Positions, Tensor], Tensor]


class ActiveAdapter(NamedTuple):
    """An adapter that acts, in every row or in some."""

    name: str
    adapter: nn.Module
    strength: float
    positions: Positions

    @property
    def everywhere(self) -> bool:
        """Whether it steers every token."""
        return self.positions.where == "all"


class RowAdapters:
    """The adapters of a batch's rows at one layer, as they are when it is made: for one call of the model.

    Adapters of one activation, positions and dtype are one product over all rows, with zeros in the rows of others;
    what is no low-rank map is called, on its rows alone. Runs of rows that share an adapter count as one long row.
    """

    def __init__(self, names: Sequence[str], members: Sequence[ActiveAdapter]) -> None:
        self.given = len(names)
        self.run = gcd(*(len(list(run)) for _, run in groupby(names)))
        self.names = list(names[:: self.run])
        self.called: dict[str, ActiveAdapter] = {}
        kinds: dict[Any, dict[int, tuple[Factors, float]]] = {}
        for member in members:
            factors = usable_factors(member.adapter)
            if factors is None:
                self.called[member.name] = member
                continue
            kind = kinds.setdefault((member.positions, factors.activation, factors.down.dtype), {})
            kind |= {row: (factors, member.strength) for row, own in enumerate(self.names) if own == member.name}
        self.products = [(kind[0], stacked(rows, len(self.names))) for kind, rows in kinds.items()]

    def steer(self, x: Tensor, mask_for: MaskFor) -> Tensor:
        """Return `x [rows, ..., d]`, or `[rows · tokens, d]`, with each row's shift added."""
        chosen = self._chosen(x.shape[0])
        names = self.names if chosen is None else [self.names[row] for row in chosen]
        rows = x.reshape(len(names), -1, x.shape[-1])
        steered = rows

        def mask(positions: Positions) -> Tensor | None:
            return None if positions.where == "all" else mask_for(positions, x).reshape(len(names), -1, 1)

        for positions, product in self.products:
            shifted = (product if chosen is None else product.of_rows(chosen)).add(steered, rows)
            where = mask(positions)
            steered = shifted if where is None else torch.where(where, shifted, steered)
        for name, member in self.called.items():
            index = torch.tensor([row for row, own in enumerate(names) if own == name], device=x.device)
            shift = shift_of(member.adapter, rows[index], member.strength).expand(len(index), *rows.shape[1:])
            where = mask(member.positions)
            if where is not None:
                shift = torch.where(where[index], shift, torch.zeros_like(shift))
            steered = steered.index_add(0, index, shift)
        return steered.reshape(x.shape)

    def _chosen(self, count: int) -> list[int] | None:
        """Which rows of ours the `count` leading entries of an activation are, None for all of them.

        Hosts may see tokens for rows (OPT flattens batch and seq before its MLP), and under beam search an encoder
        sees each prompt once while the names are already repeated for the beams.
        """
        if count % self.given and self.given % count:
            raise ActshiftError(
                f"adapter_names has {self.given} entries for a batch of {count} rows; give one name a row ('__base__' "
                "for none)."
            )
        if count % len(self.names) == 0:
            return None
        return [row * (self.given // count) // self.run for row in range(count)]
