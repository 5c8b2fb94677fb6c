"""G itself, where it is small."""

from __future__ import annotations

from typing import NamedTuple

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
