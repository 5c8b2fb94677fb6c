"""Orthonormal bases of the columns of a matrix, projections away from their span, and overlaps of two spans.

Shapes: `d`, the width of the residual stream; `r`, the columns of B; `n`, the rows of W_down; any leading batch
dimensions, such as one entry per block. Computations are in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RESOLUTION = 2.0**-20
"""Smallest distance of a column from the span of the others, relative to its length and √r, that counts as a new
direction. Rounding to float32 makes 2⁻²⁴. B writes at most a millionth of its output along a direction left out."""
WELL_SEPARATED = 2.0**-10
"""Relative distance of each column from the span of the columns before it at which the Gram matrix can be solved
directly: the rounding error is below 1e-9, and the second pass squares it."""
POLYNOMIAL_STEPS = 7
"""After so many steps of `parseval_frame` a direction twice (half) as long as the limit is at 1 (0) up to rounding."""
ZERO_ROW = 1e-10
"""A row that keeps less than this share of its length in a projection was in the span. The rest is rounding error."""


def orthonormal_basis(columns: Tensor) -> Tensor:
    """Return Q `[..., d, r]` in float64, whose orthonormal columns span `columns [..., d, r]` (any floating dtype).

    If the columns span fewer than r directions (such as a zero B at the start), the remaining columns of Q are exactly
    zero, and QQᵀ is still the projection onto the span. Each column counts by its direction alone, however small it
    is. NaN and infinite entries count as 0.

    Source: this project, docs/method.md#orthogonality: the eigenvectors of the Gram matrix, refined by two
    Newton-Schulz steps.

    >>> orthonormal_basis(torch.tensor([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])).abs().sum(-1).round(decimals=3).tolist()
    [1.0, 0.0]
    """
    unit, _ = _normalized(columns)
    values, vectors = torch.linalg.eigh(unit.mT @ unit)
    smallest = RESOLUTION**2 * columns.shape[-1]
    scale = torch.where(values > smallest, values.clamp_min(smallest).rsqrt(), 0.0)
    basis = unit @ (vectors * scale.unsqueeze(-2))
    for _ in range(2):  # eigenvectors of small eigenvalues have errors of 1e-4; each step squares them, and keeps zeros
        basis = 1.5 * basis - 0.5 * basis @ (basis.mT @ basis)
    return basis


def parseval_frame(columns: Tensor) -> Tensor:
    """Return a frame F `[..., d, r]` in float64 such that FFᵀ is the projection onto the span of the columns.

    It replaces `orthonormal_basis` where only FFᵀ matters. It needs no eigenvectors, whose computation synchronises a
    CUDA device with the CPU. The same directions count; one exactly at the limit can count in part.

    Source: this project, docs/method.md#orthogonality. A shifted Cholesky QR (Fukaya et al., SIAM J. Sci. Comput. 42,
    2020) scales a direction of length t to t / √(t² + shift). Repeating the polynomial (5t³ − 3t⁵)/2 takes that to 1
    above √⅔ and to 0 below.

    >>> frame = parseval_frame(torch.tensor([[2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> (frame @ frame.mT).abs().round(decimals=9).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    unit, _ = _normalized(columns)
    identity = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    shift = RESOLUTION**2 * unit.shape[-1] / 2  # scales a length at the limit to √⅔
    factor, _ = torch.linalg.cholesky_ex(unit.mT @ unit + shift * identity)
    frame = torch.linalg.solve_triangular(factor, unit.mT, upper=False).mT
    gram, polynomial = frame.mT @ frame, identity
    for _ in range(POLYNOMIAL_STEPS):
        step = 2.5 * gram - 1.5 * gram @ gram
        gram, polynomial = step @ gram @ step, polynomial @ step
    return frame @ polynomial


def project_rows(rows: Tensor, basis: Tensor) -> Tensor:
    """Return `rows [..., n, d]` without their part in the span of `basis [..., d, r]`: W (I − QQᵀ), in rows' dtype.

    A row within the span becomes exactly 0.
    """
    return _subtract(rows, lambda exact: (exact @ basis) @ basis.mT)


def project_away(rows: Tensor, columns: Tensor) -> Tensor:
    """Return `rows [..., n, d]` without their part in the span of `columns [..., d, r]`, in rows' dtype.

    The result equals `project_rows(rows, orthonormal_basis(columns))`. On the CPU, if the columns are well separated,
    it is computed as W (I − U G⁻¹ Uᵀ) with the normalised columns U and G = UᵀU, one product with U instead of four.
    Otherwise a Parseval frame is used. Other devices always use the frame, because the check would synchronise them.

    >>> project_away(torch.eye(3)[:2], torch.tensor([[0.0], [3.0], [0.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if columns.device.type in ("cpu", "mps"):
        unit, length = _normalized(columns)
        gram = unit.mT @ unit + torch.diag_embed((length == 0).squeeze(-2).to(unit.dtype))  # zero columns span nothing
        factor, failed = torch.linalg.cholesky_ex(gram)
        separated = (failed == 0) & (factor.diagonal(dim1=-2, dim2=-1) > WELL_SEPARATED).all(-1)
        if separated.all():
            return _subtract(rows, lambda exact: torch.cholesky_solve((exact @ unit).mT, factor).mT @ unit.mT)
    return project_rows(rows, parseval_frame(columns))


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
    exact = _as_float64(rows)
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


def chance_overlap(first: int, second: int, width: int) -> float:
    """Return the expected mean squared cosine between two random subspaces of these dimensions in width d.

    It is E‖Q₁ᵀQ₂‖²_F = r₁r₂/d over min(r₁, r₂) angles, so max(r₁, r₂)/d. Only an overlap above it is meaningful.

    >>> chance_overlap(8, 8, 2048)
    0.00390625
    """
    return max(first, second) / width


def _as_float64(tensor: Tensor) -> Tensor:
    # Apple's GPUs do not support float64.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _normalized(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns at unit length in float64 (zero columns unchanged), and their lengths `[..., 1, r]`."""
    exact = _as_float64(columns).nan_to_num(0.0, 0.0, 0.0)
    length = exact.norm(dim=-2, keepdim=True)
    return exact / torch.where(length > 0, length, 1.0), length


def _subtract(rows: Tensor, part_in_span: Callable[[Tensor], Tensor]) -> Tensor:
    exact = _as_float64(rows)
    once = exact - part_in_span(exact)
    twice = once - part_in_span(once)  # the first pass leaves a rounding error as large as the removed part
    in_span = twice.norm(dim=-1, keepdim=True) <= ZERO_ROW * exact.norm(dim=-1, keepdim=True)
    return torch.where(in_span, 0.0, twice).to(rows.dtype).to(rows.device)


def _rank(basis: Tensor) -> int:
    return int(basis.norm(dim=-2).round().sum())
