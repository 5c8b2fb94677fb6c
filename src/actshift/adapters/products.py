"""Low-rank maps of one kind stacked, so that each row of a batch is shifted by its own in one batched product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import fused
from actshift.adapters.activations import ACTIVATIONS
from actshift.adapters.factors import Factors
from actshift.adapters.lean import product_dtype


class Product(NamedTuple):
    """The `factors` of R rows: `down [R, r, d]`, `up [R, d, r]`, `down_bias [R, 1, r]`, `up_bias [R, 1, d]`.

    Each row's strength is in `up` and `up_bias`. Ranks below r are filled up with zeros, and rows without an adapter
    are zero, so that they keep their values to the bit.
    """

    factors: Factors

    def add(self, base: Tensor, x: Tensor) -> Tensor:
        """Return `base + s·Δ(x)` in the dtype of `base`, for `base` and `x` of `[R, tokens, d]`."""
        factors, up_bias = self.factors, self.factors.up_bias
        dtype = product_dtype(x, factors.down.dtype)
        if not torch.is_grad_enabled() and fused.takes(x, factors, base):
            return fused.sum_and_code(base, x, factors, 1.0, dtype)[0]
        shifted = base if up_bias is None else base + up_bias.to(base.dtype)
        if not factors.down.shape[1]:
            return shifted
        down, up, activation, down_bias, _ = factors.to(dtype)
        wide = x.to(dtype)
        code = wide @ down.mT if down_bias is None else torch.baddbmm(down_bias, wide, down.mT)
        code = ACTIVATIONS[activation](code)
        return torch.baddbmm(shifted, code, up.mT) if base.dtype == dtype else shifted + (code @ up.mT).to(base.dtype)

    def of_rows(self, rows: Sequence[int]) -> Product:
        """Return that of some of the rows."""
        down, up, activation, *biases = self.factors
        down_bias, up_bias = (None if bias is None else bias[rows] for bias in biases)
        return Product(Factors(down[rows], up[rows], activation, down_bias, up_bias))


def stacked(shifts: Mapping[int, tuple[Factors, float]], count: int) -> Product:
    """Return the product of `count` rows, of which some have factors and a strength; of one activation and width.

    >>> from actshift import Vector
    >>> product = stacked({1: (Vector().build(3).factors()._replace(up_bias=torch.ones(3)), 2.0)}, count=2)
    >>> product.add(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)).tolist()
    [[[0.0, 0.0, 0.0]], [[2.0, 2.0, 2.0]]]
    """
    example = next(iter(shifts.values()))[0]
    rank, width = max(len(factors.down) for factors, _ in shifts.values()), example.down.shape[1]
    nothing = Factors(example.down.new_zeros(rank, width), example.up.new_zeros(width, rank))
    rows = [shifts.get(row, (nothing, 1.0)) for row in range(count)]

    def biases(name: str, size: int) -> Tensor | None:
        found = [getattr(factors, name) for factors, _ in rows]
        if all(bias is None for bias in found):
            return None
        zeros = example.down.new_zeros(size)
        return torch.stack([zeros if bias is None else F.pad(bias, (0, size - len(bias))) for bias in found])[:, None]

    strength = torch.tensor([s for _, s in rows], dtype=example.down.dtype, device=example.down.device)[:, None, None]
    up_bias = biases("up_bias", width)
    factors = Factors(
        torch.stack([F.pad(factors.down, (0, 0, 0, rank - len(factors.down))) for factors, _ in rows]),
        strength * torch.stack([F.pad(factors.up, (0, rank - factors.up.shape[1])) for factors, _ in rows]),
        example.activation,
        biases("down_bias", rank),
        None if up_bias is None else strength * up_bias,
    )
    return Product(factors)
