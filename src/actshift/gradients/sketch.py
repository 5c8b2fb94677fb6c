"""The leading part of G from one pass over the tokens, in memory that grows with its width and not with its area."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Factors(NamedTuple):
    """The leading part of a matrix: `left [outputs, r]`, `values [r]` falling, `right [inputs, r]`."""

    left: Tensor
    values: Tensor
    right: Tensor


class Exact:
    """The sum G = Σ g xᵀ `[outputs, inputs]`, for each group of batches apart.

    >>> exact = Exact(torch.zeros(1, 2), torch.zeros(1, 3), groups=1)
    >>> exact.add(0, torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0, 0.0]]))
    >>> exact.values(torch.ones(1), rank=2).tolist()
    [6.0, 0.0]
    """

    def __init__(self, g: Tensor, x: Tensor, groups: int) -> None:
        self.sums = g.new_zeros(groups, g.shape[-1], x.shape[-1])

    def add(self, group: int, g: Tensor, x: Tensor) -> None:
        """Add the tokens of `g [tokens, outputs]` and `x [tokens, inputs]`."""
        self.sums[group].addmm_(g.T, x)

    def matrix(self, shares: Tensor) -> Tensor:
        """Return Σ shares[j] G_j over the groups j `[groups]`."""
        return torch.tensordot(shares.to(self.sums), self.sums, dims=1)

    def values(self, shares: Tensor, rank: int) -> Tensor:
        """Return the largest `rank` singular values of that sum, falling."""
        return torch.linalg.svdvals(self.matrix(shares))[:rank]

    def along(self, shares: Tensor, factors: Factors) -> Tensor:
        """Return what that sum holds of each direction `u_i v_iᵀ` of some factors, `u_iᵀ G v_i` `[r]`."""
        return ((factors.left.T @ self.matrix(shares)) * factors.right.T).sum(-1)

    def factors(self, shares: Tensor, rank: int) -> Factors:
        """Return the leading part of that sum."""
        left, values, right = torch.linalg.svd(self.matrix(shares), full_matrices=False)
        return Factors(left[:, :rank], values[:rank], right[:rank].T)


SIZE = 64
"""Columns of the range sketches: what is asked of the sketch is a rank well below."""
CORE = 2 * SIZE + 1
"""Columns of the core sketch, as its source recommends for its SIZE."""


class Sketch:
    """Three fixed random views of G = Σ g xᵀ `[outputs, inputs]`, each linear in G and so summed over tokens.

    range    Y = G Ω      [outputs, SIZE]      Ω [inputs, SIZE]
    corange  X = Υ G      [SIZE, inputs]       Υ [SIZE, outputs]
    core     Z = Φ G Ψ    [CORE, CORE]         Φ [CORE, outputs], Ψ [inputs, CORE]

    With Y = Q R, Xᵀ = P R' and C = (ΦQ)⁺ Z (PᵀΨ)⁺, the estimate is Ĝ = Q C Pᵀ, exact where rank G ≤ SIZE. The random
    matrices are Gaussian and the same for every token, batch, run and device.

    Source: Tropp, Yurtsever, Udell, Cevher, arXiv 1902.08651, §2.
    """

    def __init__(self, g: Tensor, x: Tensor, groups: int) -> None:
        self.outputs, self.inputs = _views("outputs", g), _views("inputs", x)
        self.range = g.new_zeros(groups, g.shape[-1], SIZE)
        self.corange = g.new_zeros(groups, SIZE, x.shape[-1])
        self.core = g.new_zeros(groups, CORE, CORE)

    def add(self, group: int, g: Tensor, x: Tensor) -> None:
        """Add the tokens of `g [tokens, outputs]` and `x [tokens, inputs]`."""
        seen_g, seen_x = g @ self.outputs, x @ self.inputs
        self.range[group].addmm_(g.T, seen_x[:, :SIZE])
        self.corange[group].addmm_(seen_g[:, :SIZE].T, x)
        self.core[group].addmm_(seen_g[:, SIZE:].T, seen_x[:, SIZE:])

    def values(self, shares: Tensor, rank: int) -> Tensor:
        """Return estimates of the largest `rank` singular values of Σ shares[j] G_j, falling."""
        _, core, _ = self._estimate(shares)
        return torch.linalg.svdvals(core)[:rank]

    def along(self, shares: Tensor, factors: Factors) -> Tensor:
        """Return estimates of what that sum holds of each direction `u_i v_iᵀ` of some factors `[r]`."""
        q, core, p = self._estimate(shares)
        return ((factors.left.T @ q @ core) * (factors.right.T @ p)).sum(-1)

    def factors(self, shares: Tensor, rank: int) -> Factors:
        """Return an estimate of the leading part of that sum."""
        q, core, p = self._estimate(shares)
        left, values, right = torch.linalg.svd(core)
        return Factors(q @ left[:, :rank], values[:rank], p @ right[:rank].T)

    def _estimate(self, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, x, z = (torch.tensordot(shares.to(view), view, dims=1) for view in (self.range, self.corange, self.core))
        q, p = torch.linalg.qr(y).Q, torch.linalg.qr(x.T).Q
        from_left = torch.linalg.lstsq(self.outputs[:, SIZE:].T @ q, z).solution
        core = torch.linalg.lstsq(self.inputs[:, SIZE:].T @ p, from_left.T).solution.T
        return q, core, p


_DRAWN: WeakValueDictionary[tuple, Tensor] = WeakValueDictionary()  # all sketches of a width share what they draw


def _views(side: str, like: Tensor) -> Tensor:
    """The random matrix `[width, SIZE + CORE]` of one side."""
    width = like.shape[-1]
    key = (side, width, like.dtype, like.device)
    views = _DRAWN.get(key)
    if views is None:
        draw = torch.Generator().manual_seed(2 * width + (side == "inputs"))
        views = torch.randn(width, SIZE + CORE, generator=draw).to(like)
        _DRAWN[key] = views
    return views
