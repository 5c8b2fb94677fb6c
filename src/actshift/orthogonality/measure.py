"""Measures of the overlap of two subspaces: the violation of the rule, and principal angles."""

from __future__ import annotations

import torch
from torch import Tensor

from actshift.orthogonality.basis import as_float64, orthonormal_basis


@torch.no_grad()
def violation(rows: Tensor, columns: Tensor) -> float:
    """Return the largest share of one of `rows [n, d]` in the span of `columns [d, r]`, from 0 (orthogonal) to 1.

    It is max_i ‖w_i Q‖ / ‖w_i‖ over the rows w_i, with Q an orthonormal basis of the columns. Scale does not matter, so
    a small B or a single small row is not hidden. A projected W_down stays below 6e-8 (2⁻²⁴, its rounding) when stored
    in float32, and below 2e-3 (2⁻⁹) in bfloat16. For the write side pass `W_up.T`. The violation is 0 if either is
    zero, and NaN if either contains a value that is not finite.

    Source: this project, docs/method.md#orthogonality. The paper defines no measure.

    >>> round(violation(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [4.0]])), 9)
    0.6
    """
    if not (torch.isfinite(rows).all() and torch.isfinite(columns).all()):
        return float("nan")
    exact = as_float64(rows)
    length = exact.norm(dim=-1)
    in_span = (exact @ orthonormal_basis(columns)).norm(dim=-1)
    return (in_span / torch.where(length > 0, length, 1.0)).max().item()


@torch.no_grad()
def principal_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosines of the principal angles between the spans of `rows [n, d]` and `columns [d, r]`.

    They are float64, descending, one per dimension of the smaller space; none if one of them is zero.

    Source: Björck and Golub, Numerical methods for computing angles between linear subspaces, 1973;
    docs/method.md#redundancy.

    >>> principal_cosines(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [4.0]])).round(decimals=9).tolist()
    [0.6]
    """
    left, right = orthonormal_basis(rows.mT), orthonormal_basis(columns)
    count = min(_rank(left), _rank(right))
    return torch.linalg.svdvals(left.mT @ right)[:count].clamp(max=1.0)


def span_dimensions(columns: Tensor) -> int:
    """Return the number of directions that `columns [d, r]` span, at the resolution of `orthonormal_basis`.

    >>> span_dimensions(torch.ones(4, 3))
    1
    """
    return _rank(orthonormal_basis(columns))


def _rank(basis: Tensor) -> int:
    return int(basis.norm(dim=-2).round().sum())


def chance_overlap(first: int, second: int, width: int) -> float:
    """Return the expected mean squared cosine between two random subspaces of these dimensions in width d.

    It is E‖Q₁ᵀQ₂‖²_F = r₁r₂/d over min(r₁, r₂) angles, so max(r₁, r₂)/d. Only an overlap above it is meaningful.

    >>> chance_overlap(8, 8, 2048)
    0.00390625
    """
    return max(first, second) / width
