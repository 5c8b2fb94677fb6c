"""LoReFT and its relatives without orthonormal rows, NoReFT and DiReFT."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.adapters.base import RankAdapter, Shift
from actshift.adapters.functional import Factors, has_hooks
from actshift.errors import DivergedError

MIN_EIGENVALUE_RATIO = 1e-8  # of the Gram matrix; its inverse root is then accurate to about 1e-8 in float64
MIN_SINGULAR_VALUE = 1e-12  # relative to the norm of M; the iteration may replace the directions of smaller ones
MIN_WEIGHT_SINGULAR_VALUE = 1e-3  # the iteration's weights assume no smaller one, for an accurate solve
FINITE_CHECK_INTERVAL = 64
_gpu_calls = count(1)


class DiReFTShift(Shift):
    """Δ(x) = writeᵀ (read x + bias), with `read [r, d]`, `write [r, d]` and `bias [r]`; the last two start at zero."""

    def __init__(self, adapter: RankAdapter, width: int, heads: int | None) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.empty(adapter.rank, width))
        self.write = nn.Parameter(torch.zeros(adapter.rank, width))
        self.bias = nn.Parameter(torch.zeros(adapter.rank))
        nn.init.kaiming_uniform_(self.read, a=sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`."""
        return F.linear(F.linear(x, self._down(), self.bias), self.write.T)

    def _down(self) -> Tensor:
        return self.read

    def factors(self) -> Factors | None:
        """Return the low-rank map of the formula, or None if the module has hooks."""
        return None if has_hooks(self) else Factors(self._down(), self.write.T, down_bias=self.bias)

    def reads(self) -> list[Tensor]:
        """Return W₁."""
        return [self.read]

    def writes(self) -> list[Tensor]:
        """Return W₂ᵀ, a view of W₂."""
        return [self.write.T]


class NoReFTShift(DiReFTShift):
    """Δ(x) = writeᵀ (read x + bias - write x). `read` starts as a copy of `write`; they are separate parameters."""

    def __init__(self, adapter: RankAdapter, width: int, heads: int | None) -> None:
        super().__init__(adapter, width, heads)
        with torch.no_grad():
            self.write.copy_(self.read)

    def _down(self) -> Tensor:
        # One product instead of two. The result is exactly zero in every dtype when the two are equal.
        return self.read - self.write

    def reads(self) -> list[Tensor]:
        """Return W₁ and W₂."""
        return [self.read, self.write]


class LoReFTShift(NoReFTShift):
    """Δ(x) = writeᵀ (read x + bias - write x). `write` is R, whose rows are made orthonormal after every step.

    The orthogonality rule gets no matrices to edit, because a projected R would not have orthonormal rows.
    """

    def __init__(self, adapter: RankAdapter, width: int, heads: int | None) -> None:
        super().__init__(adapter, width, heads)
        nn.init.orthogonal_(self.write)
        with torch.no_grad():
            self.read.copy_(self.write)

    def after_step(self) -> None:
        """Replace R by the nearest matrix with orthonormal rows."""
        self.after_step_of_all([self])

    @classmethod
    @torch.no_grad()
    def after_step_of_all(cls, shifts: Sequence[Shift]) -> None:
        """Replace R of several shifts, batching those with the same shape and device."""
        groups: dict[tuple[torch.Size, torch.device], list[Tensor]] = {}
        for shift in shifts:
            assert isinstance(shift, LoReFTShift)
            groups.setdefault((shift.write.shape, shift.write.device), []).append(shift.write)
        for group in groups.values():
            for write, nearest in zip(group, nearest_orthonormal(torch.stack(group)), strict=True):
                write.copy_(nearest)

    def reads(self) -> list[Tensor]:
        """Return no matrices."""
        return []

    def writes(self) -> list[Tensor]:
        """Return no matrices."""
        return []


@dataclass(frozen=True)
class LoReFT(RankAdapter):
    """Edit an activation within r learned directions: Δ(x) = Rᵀ(Wx + b - Rx), 2dr + r parameters per site.

    `R [r, d]` (stored as `write`) has orthonormal rows at the start and after every optimiser step, to 1e-5 in float32
    and 1e-2 in bfloat16. `W [r, d]` (stored as `read`) starts as a copy of R, and `b [r]` at zero.

    Raises:
        ActshiftError: a rank below 1; from `build`, a rank above the site's width; during training, a diverged R.

    Source: Wu et al., ReFT, arXiv 2404.03592, eq. 2. Restoring R by its polar factor after each step: this project,
    docs/method.md#loreft. The authors train R through a parametrisation, which needs support from the optimiser.

    >>> LoReFT(rank=8).parameter_count(2048)
    32776
    """

    kind: ClassVar[str] = "loreft"
    shift = LoReFTShift


@dataclass(frozen=True)
class NoReFT(RankAdapter):
    """LoReFT without the orthonormal rows: Δ(x) = W₂ᵀ(W₁x + b - W₂x), 2dr + r parameters per site.

    `W₂ [r, d]` (stored as `write`) starts Kaiming-uniform(a=√5), `W₁ [r, d]` (stored as `read`) as a copy of it, and
    `b [r]` at zero. Errors are as in `LoReFT`.

    Source: NoReFT in pyreft, the library of the ReFT authors (arXiv 2404.03592).

    >>> NoReFT(rank=4).build(16)(torch.ones(2, 3, 16)).count_nonzero().item()
    0
    """

    kind: ClassVar[str] = "noreft"
    shift = NoReFTShift


@dataclass(frozen=True)
class DiReFT(RankAdapter):
    """LoReFT without the orthonormal rows and the difference: Δ(x) = W₂ᵀ(W₁x + b), 2dr + r parameters per site.

    `W₁ [r, d]` (stored as `read`) starts Kaiming-uniform(a=√5), `W₂ [r, d]` (stored as `write`) and `b [r]` at zero.
    Errors are as in `LoReFT`.

    Source: Wu et al., ReFT, arXiv 2404.03592, eq. 3.

    >>> DiReFT(rank=4).build(16)(torch.ones(2, 3, 16)).count_nonzero().item()
    0
    """

    kind: ClassVar[str] = "direft"
    shift = DiReFTShift


def nearest_orthonormal(matrix: Tensor) -> Tensor:
    """Return the matrix with orthonormal rows nearest to M = `matrix [..., r, d]` (r ≤ d), in float64.

    This is the polar factor (M Mᵀ)^-1/2 M (nearest in the Frobenius norm), computed from the Gram matrix `[r, r]`, or
    by an SVD if M is nearly rank-deficient. If several matrices are equally near, the SVD chooses one. On CUDA devices
    both decompositions would synchronise with the CPU, so an iteration that reads no values is used instead.

    Raises:
        DivergedError: M contains values that are not finite. On CUDA devices only every 64th call checks this.

    Source: docs/method.md#loreft. CUDA iteration: Nakatsukasa, Bai and Gygi, Optimizing Halley's iteration for
    computing the matrix polar decomposition, SIAM J. Matrix Anal. Appl. 31, 2010.

    >>> nearest_orthonormal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1e-9]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    # Apple's GPUs have neither float64 nor an eigensolver.
    exact = matrix.detach().to("cpu" if matrix.device.type == "mps" else matrix.device, torch.float64)
    gram = exact @ exact.mT
    on_cpu = exact.device.type == "cpu"
    if (on_cpu or next(_gpu_calls) % FINITE_CHECK_INTERVAL == 0) and not torch.isfinite(gram).all():
        raise DivergedError("LoReFT's R is no longer finite: training has diverged. Use a lower learning rate.")
    if not on_cpu:
        return _halley_iteration(exact)
    values, vectors = torch.linalg.eigh(gram)  # ascending
    if (values[..., 0] > MIN_EIGENVALUE_RATIO * values[..., -1]).all():
        return vectors @ ((vectors.mT @ exact) / values.sqrt()[..., None])
    left, _, right = torch.linalg.svd(exact, full_matrices=False)
    return left @ right


def _halley_iteration(matrix: Tensor) -> Tensor:
    """Return the polar factor of a float64 matrix `[..., r, d]` by a fixed number of dynamically weighted steps."""
    rank, width = matrix.shape[-2:]
    identity, index = torch.eye(rank).to(matrix), torch.arange(width).to(matrix)
    # Orthogonal rows (a discrete cosine transform) that replace directions which M has lost.
    completion = torch.cos(pi / width * torch.outer(index[:rank], index + 0.5)) * sqrt(2 / width)
    norm = matrix.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    factor = matrix / norm + MIN_SINGULAR_VALUE * completion
    for a, b, c in _halley_weights():
        inverse = torch.linalg.inv_ex(identity + c * factor @ factor.mT).inverse
        factor = b / c * factor + (a - b / c) * inverse @ factor
    return factor


def _halley_weights() -> Iterator[tuple[float, float, float]]:
    """Yield (a, b, c) of the steps t ← t (a + b t²) / (1 + c t²) that take every t in [MIN_SINGULAR_VALUE, 1] to 1."""
    lower = MIN_SINGULAR_VALUE
    while lower < 1 - 1e-15:
        low = max(lower, MIN_WEIGHT_SINGULAR_VALUE) ** 2
        bend = (4 * (1 - low) / low**2) ** (1 / 3)
        a = sqrt(1 + bend) + sqrt(8 - 4 * bend + 8 * (2 - low) / (low * sqrt(1 + bend))) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        yield a, b, c
        lower *= (a + b * lower**2) / (1 + c * lower**2)
