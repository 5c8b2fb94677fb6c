"""Sums of gradient matrices over tokens: exact for small matrices, sketched for large ones."""

from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

SIZE = 64  # columns of the range and corange sketches; requested ranks should be well below
CORE = 2 * SIZE + 1  # columns of the core sketch, as the source recommends for this SIZE


class Factors(NamedTuple):
    """A truncated SVD: `left [..., outputs, r]`, descending singular `values [..., r]`, `right [..., inputs, r]`."""

    left: Tensor
    values: Tensor
    right: Tensor


class ExactSum:
    """The sum G = Σ g xᵀ over tokens, `[outputs, inputs]`, for each group of batches.

    >>> exact = ExactSum(torch.zeros(1, 2), torch.zeros(1, 3), groups=1)
    >>> exact.add(0, torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0, 0.0]]))
    >>> exact.factors(torch.ones(1), rank=2).values.tolist()
    [6.0, 0.0]
    """

    def __init__(self, g: Tensor, x: Tensor, groups: int) -> None:
        self.sums = g.new_zeros(groups, g.shape[-1], x.shape[-1])

    def add(self, group: int, g: Tensor, x: Tensor) -> None:
        """Add the tokens of `g [tokens, outputs]` and `x [tokens, inputs]`."""
        self.sums[group].addmm_(g.T, x)

    def matrix(self, shares: Tensor) -> Tensor:
        """Return Σ_j shares[…, j] G_j over the groups j, `[..., outputs, inputs]`; `shares` is `[..., groups]`."""
        return torch.tensordot(shares.to(self.sums), self.sums, dims=1)

    def along(self, shares: Tensor, factors: Factors) -> Tensor:
        """Return u_iᵀ G v_i `[..., r]`, the component of each weighted sum G along the directions u_i v_iᵀ."""
        return ((factors.left.mT @ self.matrix(shares)) * factors.right.mT).sum(-1)

    def factors(self, shares: Tensor, rank: int) -> Factors:
        """Return the SVD of each weighted sum, truncated to `rank`.

        An eigendecomposition of G Gᵀ takes a third of the time of an SVD of G. The values come from Gᵀ u and not from
        the square roots of the eigenvalues, so they are as accurate as those of an SVD.
        """
        matrix = self.matrix(shares)
        is_wide = matrix.shape[-2] <= matrix.shape[-1]
        wide = matrix if is_wide else matrix.mT
        short = torch.linalg.eigh(wide @ wide.mT).eigenvectors[..., -rank:].flip(-1)
        long, sizes = torch.linalg.qr(wide.mT @ short)
        values = sizes.diagonal(dim1=-2, dim2=-1)
        long = long * torch.where(values < 0, -1, 1)[..., None, :]
        return Factors(short, values.abs(), long) if is_wide else Factors(long, values.abs(), short)


class Sketch:
    """Three random projections of G = Σ g xᵀ `[outputs, inputs]`. They are linear in G, so they add up over tokens.

    range    Y = G Ω      [outputs, SIZE]      Ω [inputs, SIZE]
    corange  X = Υ G      [SIZE, inputs]       Υ [SIZE, outputs]
    core     Z = Φ G Ψ    [CORE, CORE]         Φ [CORE, outputs], Ψ [inputs, CORE]

    With Y = Q R, Xᵀ = P R' and C = (ΦQ)⁺ Z (PᵀΨ)⁺, the estimate is Ĝ = Q C Pᵀ, which is exact for rank G ≤ SIZE. The
    random matrices are Gaussian and the same for every token, batch, run and device. Memory is O(outputs + inputs).

    Source: Tropp, Yurtsever, Udell, Cevher, arXiv 1902.08651, §2.
    """

    def __init__(self, g: Tensor, x: Tensor, groups: int) -> None:
        self.outputs, self.inputs = _projection("outputs", g), _projection("inputs", x)
        self.range = g.new_zeros(groups, g.shape[-1], SIZE)
        self.corange = g.new_zeros(groups, SIZE, x.shape[-1])
        self.core = g.new_zeros(groups, CORE, CORE)

    def add(self, group: int, g: Tensor, x: Tensor) -> None:
        """Add the tokens of `g [tokens, outputs]` and `x [tokens, inputs]`."""
        projected_g, projected_x = g @ self.outputs, x @ self.inputs
        self.range[group].addmm_(g.T, projected_x[:, :SIZE])
        self.corange[group].addmm_(projected_g[:, :SIZE].T, x)
        self.core[group].addmm_(projected_g[:, SIZE:].T, projected_x[:, SIZE:])

    def along(self, shares: Tensor, factors: Factors) -> Tensor:
        """Return estimates of u_iᵀ G v_i `[..., r]` for weighted sums G, as `ExactSum.along`."""
        q, core, p = self._estimate(shares)
        return ((factors.left.mT @ q @ core) * (factors.right.mT @ p)).sum(-1)

    def factors(self, shares: Tensor, rank: int) -> Factors:
        """Return estimates of the SVDs of Σ_j shares[…, j] G_j, truncated to `rank`; `shares` is `[..., groups]`."""
        q, core, p = self._estimate(shares)
        left, values, right = torch.linalg.svd(core)
        return Factors(q @ left[..., :rank], values[..., :rank], p @ right[..., :rank, :].mT)

    def _estimate(self, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, x, z = (torch.tensordot(shares.to(part), part, dims=1) for part in (self.range, self.corange, self.core))
        q, p = torch.linalg.qr(y).Q, torch.linalg.qr(x.mT).Q
        from_left = torch.linalg.lstsq(self.outputs[:, SIZE:].T @ q, z).solution
        core = torch.linalg.lstsq(self.inputs[:, SIZE:].T @ p, from_left.mT).solution.mT
        return q, core, p


_PROJECTIONS: WeakValueDictionary[tuple[str, int, torch.dtype, torch.device], Tensor] = WeakValueDictionary()
"""Cache: all sketches of one width share their random matrix."""


def _projection(side: str, like: Tensor) -> Tensor:
    """Return the random matrix of one side, `[width, SIZE + CORE]`, in the dtype and on the device of `like`."""
    key = (side, like.shape[-1], like.dtype, like.device)
    if (projection := _PROJECTIONS.get(key)) is None:
        generator = torch.Generator().manual_seed(2 * like.shape[-1] + (side == "inputs"))
        _PROJECTIONS[key] = projection = torch.randn(like.shape[-1], SIZE + CORE, generator=generator).to(like)
    return projection
