"""An orthonormal basis of what a weight update writes, and the projection away from it.

Shape alphabet: d (the width of the residual stream), r (columns of B), n (rows of W_down), and any leading batch, one
entry a block. Everything is computed in float64 and returned in the dtype that each function names.
"""

from __future__ import annotations

import torch
from torch import Tensor

RESOLUTION = 2.0**-20
"""How far a column must stand out of the span of the others, by its own length and √r, to count as a direction of its
own. Rounding to float32 makes 2⁻²⁴ of it out of nothing; what is dropped is written by B to one part in a million at
most, ten times under what the rule promises."""

DEAD = 1e-10
"""A row that keeps less than this share of its length in a projection lay within the span: what is left is rounding."""


def orthonormal_basis(columns: Tensor) -> Tensor:
    """Return `Q [..., d, r]` in float64 with orthonormal columns that span those of `columns [..., d, r]`.

    Where there are fewer than r directions (B zero at its start, or of deficient rank) the columns of Q that are left
    over are exactly zero, and QQᵀ is still the projection onto col(B): no direction is made up. Each column counts by
    its direction alone, however small it is; NaN and infinite entries count as 0.
    Batched, without a shape that depends on the data.

    Source: [ours]; the eigenvectors of the Gram matrix, refined by two Newton-Schulz steps.

    >>> orthonormal_basis(torch.tensor([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])).abs().sum(-1).round(decimals=3).tolist()
    [1.0, 0.0]
    """
    exact = as_float64(columns).nan_to_num(0.0, 0.0, 0.0)
    length = exact.norm(dim=-2, keepdim=True)
    unit = exact / torch.where(length > 0, length, 1.0)
    values, vectors = torch.linalg.eigh(unit.mT @ unit)
    smallest = RESOLUTION**2 * columns.shape[-1]
    scale = torch.where(values > smallest, values.clamp_min(smallest).rsqrt(), 0.0)
    basis = unit @ (vectors * scale.unsqueeze(-2))
    for _ in range(2):  # a small eigenvalue leaves its vector off by 1e-4; each step squares that, and keeps zeros
        basis = 1.5 * basis - 0.5 * basis @ (basis.mT @ basis)
    return basis


def project_rows(rows: Tensor, basis: Tensor) -> Tensor:
    """Return `rows [..., n, d]` without their part in the span of `basis [..., d, r]`: W (I − QQᵀ), in rows' dtype.

    A row that lies within the span becomes exactly 0.
    """
    exact = as_float64(rows)
    once = exact - (exact @ basis) @ basis.mT
    twice = once - (once @ basis) @ basis.mT  # the first pass leaves rounding as large as the part it took away
    dead = twice.norm(dim=-1, keepdim=True) <= DEAD * exact.norm(dim=-1, keepdim=True)
    return torch.where(dead, 0.0, twice).to(rows.dtype).to(rows.device)


def project_columns(columns: Tensor, basis: Tensor) -> Tensor:
    """Return `columns [..., d, n]` without their part in the span of `basis [..., d, r]`: (I − QQᵀ) W, in its dtype."""
    return project_rows(columns.mT, basis).mT


def as_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64; on the CPU where its own device (Apple's) has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
