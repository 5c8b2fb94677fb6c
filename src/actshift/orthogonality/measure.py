"""How far two subspaces overlap: one figure for the rule, and the principal angles."""

from __future__ import annotations

import torch
from torch import Tensor

from actshift.orthogonality.basis import as_float64, orthonormal_basis


@torch.no_grad()
def violation(rows: Tensor, columns: Tensor) -> float:
    """Return how much of what `rows [n, d]` read lies in the span of `columns [d, r]`, from 0 (orthogonal) to 1.

    It is max_i ‖w_i Q‖ / ‖w_i‖ over the rows w_i, Q an orthonormal basis of the columns: the scale of neither counts,
    so that a small B or one small row hides nothing. 0 where either is zero, NaN where either holds NaN. A perfectly
    projected W_down stored in float32 stays under 6e-8 (2⁻²⁴, its rounding), in bfloat16 under 2e-3 (2⁻⁹).
    For the write side pass `W_up.T`.

    Source: [ours]; the paper gives no figure.

    >>> round(violation(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [4.0]])), 9)
    0.6
    """
    if not (torch.isfinite(rows).all() and torch.isfinite(columns).all()):
        return float("nan")
    exact = as_float64(rows)
    length = exact.norm(dim=-1)
    within = (exact @ orthonormal_basis(columns)).norm(dim=-1)
    return (within / torch.where(length > 0, length, 1.0)).max().item()


@torch.no_grad()
def principal_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosines of the principal angles between the span of `rows [n, d]` and of `columns [d, r]`.

    Descending, in float64, one for each dimension of the smaller space, and so none where one of them is zero.

    Source: Björck and Golub, Numerical methods for computing angles between linear subspaces, 1973.

    >>> principal_cosines(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [4.0]])).round(decimals=9).tolist()
    [0.6]
    """
    left, right = orthonormal_basis(rows.mT), orthonormal_basis(columns)
    count = min(_dimensions(left), _dimensions(right))
    return torch.linalg.svdvals(left.mT @ right)[:count].clamp(max=1.0)


def principal_angles(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the principal angles in degrees, ascending: 0 is a shared direction, 90 none.

    >>> principal_angles(torch.eye(3)[:1], torch.eye(3)[:, 1:2]).tolist()
    [90.0]
    """
    return torch.rad2deg(torch.arccos(principal_cosines(rows, columns)))


def span_dimensions(columns: Tensor) -> int:
    """Return how many directions `columns [d, r]` span: its rank, as `orthonormal_basis` resolves it.

    >>> span_dimensions(torch.ones(4, 3))
    1
    """
    return _dimensions(orthonormal_basis(columns))


def _dimensions(basis: Tensor) -> int:
    return int(basis.norm(dim=-2).round().sum())


def chance_overlap(first: int, second: int, width: int) -> float:
    """Return the mean squared cosine expected between two random subspaces of these dimensions in width d.

    E‖Q₁ᵀQ₂‖²_F = r₁r₂/d over min(r₁, r₂) angles, so max(r₁, r₂)/d: what an overlap must exceed to mean anything.

    >>> chance_overlap(8, 8, 2048)
    0.00390625
    """
    return max(first, second) / width
