"""An orthonormal basis of what a weight update writes, and the projection away from it.

Shape alphabet: d (the width of the residual stream), r (columns of B), n (rows of W_down), and any leading batch, one
entry a block. Everything is computed in float64 and returned in the dtype that each function names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RESOLUTION = 2.0**-20
"""How far a column must stand out of the span of the others, by its own length and √r, to count as a direction of its
own. Rounding to float32 makes 2⁻²⁴ of it out of nothing; what is dropped is written by B to one part in a million at
most, ten times under what the rule promises."""

WELL_APART = 2.0**-10
"""Where every column stands this far out of the span of those before it, by its own length, the Gram matrix can be
solved directly: rounding makes less than 1e-9 of it, and the second pass squares that."""

STEPS = 7
"""So many times the polynomial is taken: what is twice as long as the limit, or half, is by then at 1 or 0 to rounding,
and so is what rounding to float32 left, a sixteenth of it."""

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
    unit, _ = _directions(columns)
    values, vectors = torch.linalg.eigh(unit.mT @ unit)
    smallest = RESOLUTION**2 * columns.shape[-1]
    scale = torch.where(values > smallest, values.clamp_min(smallest).rsqrt(), 0.0)
    basis = unit @ (vectors * scale.unsqueeze(-2))
    for _ in range(2):  # a small eigenvalue leaves its vector off by 1e-4; each step squares that, and keeps zeros
        basis = 1.5 * basis - 0.5 * basis @ (basis.mT @ basis)
    return basis


def parseval_frame(columns: Tensor) -> Tensor:
    """Return `F [..., d, r]` in float64 of which FFᵀ is the projection onto the span of `columns [..., d, r]`.

    It is what `orthonormal_basis` is where only FFᵀ counts, without eigenvectors, whose computation makes a CUDA
    device and the CPU wait for each other. What counts as a direction is the same; one at the very limit may count in
    part.

    Source: [ours]; a shifted Cholesky QR (Fukaya et al., SIAM J. Sci. Comput. 42, 2020) leaves a direction of length t
    at t / √(t² + shift), and the polynomial (5t³ − 3t⁵)/2, taken again and again, brings that to 1 above √⅔ and to 0
    below.

    >>> frame = parseval_frame(torch.tensor([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> (frame @ frame.mT).abs().round(decimals=9).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    return _frame_of(_directions(columns)[0])


def project_rows(rows: Tensor, basis: Tensor) -> Tensor:
    """Return `rows [..., n, d]` without their part in the span of `basis [..., d, r]`: W (I − QQᵀ), in rows' dtype.

    A row that lies within the span becomes exactly 0.
    """
    return _without(rows, lambda exact: (exact @ basis) @ basis.mT)


def project_away(rows: Tensor, columns: Tensor) -> Tensor:
    """Return `rows [..., n, d]` without their part in the span of `columns [..., d, r]`, in rows' dtype.

    It is `project_rows(rows, orthonormal_basis(columns))`, and with U the columns at unit length W (I − U G⁻¹ Uᵀ),
    G = UᵀU. That is what the CPU computes while the columns stand well apart, since it needs one product with U in
    place of four; where some do not, a frame is taken. Elsewhere it always is, as to ask would be to wait.

    >>> project_away(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [0.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    unit, length = _directions(columns)
    if unit.device.type == "cpu":
        gram = unit.mT @ unit + torch.diag_embed((length == 0).squeeze(-2).to(unit.dtype))  # zero columns span nothing
        factor, failed = torch.linalg.cholesky_ex(gram)
        apart = (failed == 0) & (factor.diagonal(dim1=-2, dim2=-1) > WELL_APART).all(-1)
        if apart.all():
            return _without(rows, lambda exact: torch.cholesky_solve((exact @ unit).mT, factor).mT @ unit.mT)
    return project_rows(rows, _frame_of(unit))


def project_columns(columns: Tensor, basis: Tensor) -> Tensor:
    """Return `columns [..., d, n]` without their part in the span of `basis [..., d, r]`: (I − QQᵀ) W, in its dtype."""
    return project_rows(columns.mT, basis).mT


def _directions(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns at unit length in float64, zero ones as they are, and their lengths `[..., 1, r]`."""
    exact = as_float64(columns).nan_to_num(0.0, 0.0, 0.0)
    length = exact.norm(dim=-2, keepdim=True)
    return exact / torch.where(length > 0, length, 1.0), length


def _frame_of(unit: Tensor) -> Tensor:
    same = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    shift = RESOLUTION**2 * unit.shape[-1] / 2  # so that a length at the limit comes to √⅔
    factor, _ = torch.linalg.cholesky_ex(unit.mT @ unit + shift * same)
    frame = torch.linalg.solve_triangular(factor, unit.mT, upper=False).mT
    gram, polynomial = frame.mT @ frame, same
    for _ in range(STEPS):
        step = 2.5 * gram - 1.5 * gram @ gram
        gram, polynomial = step @ gram @ step, polynomial @ step
    return frame @ polynomial


def _without(rows: Tensor, within: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the rows less their part `within` a span, taken twice."""
    exact = as_float64(rows)
    once = exact - within(exact)
    twice = once - within(once)  # the first pass leaves rounding as large as the part it took away
    dead = twice.norm(dim=-1, keepdim=True) <= DEAD * exact.norm(dim=-1, keepdim=True)
    return torch.where(dead, 0.0, twice).to(rows.dtype).to(rows.device)


def as_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64; on the CPU where its own device (Apple's) has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
