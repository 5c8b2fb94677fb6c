"""LoReFT, and its two usual relatives without the orthonormal rows: NoReFT and DiReFT."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.adapters.base import Adapter, Shift, check_rank, register
from actshift.adapters.factors import Factors, has_hooks
from actshift.errors import ActshiftError

WELL_CONDITIONED = 1e-8
"""Down to this ratio of the Gram matrix's eigenvalues its inverse root is good to about 1e-8 in float64."""

LOST = 1e-12
"""A direction of M below this, by M's length, is as good as lost, and the iteration may put any other in its place."""

STEEPEST = 1e-3
"""The iteration's weights are those for directions from here up, since steeper ones lose what the solve needs."""

_asked = count(1)


def nearest_orthonormal(matrix: Tensor) -> Tensor:
    """Return the matrix with orthonormal rows that is nearest in the Frobenius norm, `[..., r, d]` in float64.

    It is the polar factor (M Mᵀ)^-1/2 M, taken through the Gram matrix `[r, r]`. Where M has nearly lost a row,
    the Gram matrix has lost it altogether, and the factor comes from M = U S Vᵀ as U Vᵀ; in directions that M has
    lost for good any orthonormal completion is equally near, and the SVD's is taken. On CUDA devices both would wait
    for the CPU, and the factor is iterated to without a look at any value.

    Raises ActshiftError for values that are not finite; on CUDA devices it asks every 64th time only.
    Source: for CUDA, Nakatsukasa, Bai and Gygi, Optimizing Halley's iteration for computing the matrix polar
    decomposition, SIAM J. Matrix Anal. Appl. 31, 2010.

    >>> nearest_orthonormal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1e-9]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    # Apple's GPUs have neither float64 nor an eigensolver.
    wide = matrix.detach().to("cpu" if matrix.device.type == "mps" else matrix.device, torch.float64)
    gram = wide @ wide.mT
    at_hand = wide.device.type == "cpu"
    if (at_hand or next(_asked) % 64 == 0) and not torch.isfinite(gram).all():
        raise ActshiftError("LoReFT's R is no longer finite: training has diverged; use a lower learning rate.")
    if not at_hand:
        return _iterated(wide)
    values, vectors = torch.linalg.eigh(gram)  # ascending
    if (values[..., 0] > WELL_CONDITIONED * values[..., -1]).all():
        return vectors @ ((vectors.mT @ wide) / values.sqrt()[..., None])
    left, _, right = torch.linalg.svd(wide, full_matrices=False)
    return left @ right


def _iterated(wide: Tensor) -> Tensor:
    rank, width = wide.shape[-2:]
    same, along = torch.eye(rank).to(wide), torch.arange(width).to(wide)
    others = torch.cos(pi / width * torch.outer(along[:rank], along + 0.5)) * sqrt(2 / width)  # orthogonal rows
    near = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny) + LOST * others
    for a, b, c in _weights():
        inverse = torch.linalg.inv_ex(same + c * near @ near.mT).inverse
        near = b / c * near + (a - b / c) * inverse @ near
    return near


def _weights() -> Iterator[tuple[float, float, float]]:
    """Yield those of t ← t (a + b t²) / (1 + c t²), under which every t from LOST to 1 comes to 1."""
    least = LOST
    while least < 1 - 1e-15:
        low = max(least, STEEPEST) ** 2
        bend = (4 * (1 - low) / low**2) ** (1 / 3)
        a = sqrt(1 + bend) + sqrt(8 - 4 * bend + 8 * (2 - low) / (low * sqrt(1 + bend))) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        yield a, b, c
        least *= (a + b * least**2) / (1 + c * least**2)


class DiReFTShift(Shift):
    """Δ(x) = writeᵀ (read x + bias), with `read [r, d]`, `write [r, d]` zero at the start, and `bias [r]` zero."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.empty(rank, width))
        self.write = nn.Parameter(torch.zeros(rank, width))
        self.bias = nn.Parameter(torch.zeros(rank))
        nn.init.kaiming_uniform_(self.read, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`."""
        return F.linear(F.linear(x, self._seen(), self.bias), self.write.T)

    def _seen(self) -> Tensor:
        return self.read

    def factors(self) -> Factors | None:
        """Return what is read of x, and Wᵀ for what is written."""
        return None if has_hooks(self) else Factors(self._seen(), self.write.T, down_bias=self.bias)

    def reads(self) -> list[Tensor]:
        """Return W₁."""
        return [self.read]

    def writes(self) -> list[Tensor]:
        """Return W₂ᵀ, a view of W₂."""
        return [self.write.T]


class NoReFTShift(DiReFTShift):
    """Δ(x) = writeᵀ (read x + bias - write x), which starts with `read = write`, each a tensor of its own."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(width, rank)
        with torch.no_grad():
            self.write.copy_(self.read)

    def _seen(self) -> Tensor:
        # One product for the two of the formula, and exactly zero where they are equal, in every dtype.
        return self.read - self.write

    def reads(self) -> list[Tensor]:
        """Return W₁ and W₂: the shift sees x through the rows of both."""
        return [self.read, self.write]


class LoReFTShift(NoReFTShift):
    """Δ(x) = writeᵀ (read x + bias - write x), where `write` is R: its rows are orthonormal after every step."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(width, rank)
        nn.init.orthogonal_(self.write)
        with torch.no_grad():
            self.read.copy_(self.write)

    def after_step(self) -> None:
        """Put R back among the matrices with orthonormal rows: the nearest one takes its place."""
        self.after_step_of_all([self])

    @classmethod
    @torch.no_grad()
    def after_step_of_all(cls, shifts: Sequence[Any]) -> None:
        """Do so for several, of which those of one shape are computed together."""
        alike: dict[Any, list[Tensor]] = {}
        for shift in shifts:
            alike.setdefault((shift.write.shape, shift.write.device), []).append(shift.write)
        for group in alike.values():
            for write, nearest in zip(group, nearest_orthonormal(torch.stack(group)), strict=True):
                write.copy_(nearest)

    # A projection of R would undo its orthonormal rows, and the next retraction would undo the projection, so
    # there is nothing here that a constraint may change.
    def reads(self) -> list[Tensor]:
        """Return nothing: a matrix with orthonormal rows cannot be projected as well."""
        return []

    def writes(self) -> list[Tensor]:
        """Return nothing, as for `reads`."""
        return []


@dataclass(frozen=True)
class ReFT(Adapter):
    """What the three share: the rank r, and 2dr + r parameters a site."""

    shift: ClassVar[type[DiReFTShift]]
    rank: int = 8

    def __post_init__(self) -> None:
        """Check the rank."""
        check_rank(self.rank)

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return the module of `width` d and this rank, with tensors `read [r, d]`, `write [r, d]`, `bias [r]`."""
        self.check_shape(width)
        return self.shift(width, self.rank)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return 2dr + r."""
        return 2 * width * self.rank + self.rank

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError where the rank exceeds the site's width d."""
        check_rank(self.rank, width)


@register
@dataclass(frozen=True)
class LoReFT(ReFT):
    """Edit an activation within r learned directions: Δ(x) = Rᵀ(Wx + b - Rx), 2dr + r parameters a site.

    `R [r, d]` has orthonormal rows, at the start and again after every optimiser step (to 1e-5 in float32, 1e-2 in
    bfloat16); `W [r, d]` starts as a copy of R and `b [r]` at zero, so that a fresh one is a no-op. R is the tensor
    `write`, W is `read`.

    Raises ActshiftError for a rank under 1; at a site, for a rank above its width.
    Source: Wu et al., ReFT, arXiv 2404.03592, eq. 2. Restoring R by the polar factor is [ours]; theirs trains R
    through a parametrisation, which needs an optimiser's cooperation.

    >>> LoReFT(rank=8).parameter_count(2048)
    32776
    """

    kind: ClassVar[str] = "loreft"
    shift = LoReFTShift


@register
@dataclass(frozen=True)
class NoReFT(ReFT):
    """LoReFT without the orthonormal rows: Δ(x) = W₂ᵀ(W₁x + b - W₂x), 2dr + r parameters a site.

    `W₂ [r, d]` (the tensor `write`) starts Kaiming-uniform(a=√5), `W₁` (`read`) as a copy of it, `b [r]` at zero.

    Raises ActshiftError for a rank under 1; at a site, for a rank above its width.
    Source: the NoReFT of the ReFT authors' pyreft (arXiv 2404.03592).

    >>> NoReFT(rank=4).build(16)(torch.ones(2, 3, 16)).count_nonzero().item()
    0
    """

    kind: ClassVar[str] = "noreft"
    shift = NoReFTShift


@register
@dataclass(frozen=True)
class DiReFT(ReFT):
    """LoReFT without the orthonormal rows and the difference: Δ(x) = W₂ᵀ(W₁x + b), 2dr + r parameters a site.

    `W₁ [r, d]` (the tensor `read`) starts Kaiming-uniform(a=√5), `W₂ [r, d]` (`write`) and `b [r]` at zero.

    Raises ActshiftError for a rank under 1; at a site, for a rank above its width.
    Source: Wu et al., ReFT, arXiv 2404.03592, eq. 3.

    >>> DiReFT(rank=4).build(16)(torch.ones(2, 3, 16)).count_nonzero().item()
    0
    """

    kind: ClassVar[str] = "direft"
    shift = DiReFTShift
