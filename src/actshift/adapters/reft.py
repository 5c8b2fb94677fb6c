"""LoReFT, and its two usual relatives without the orthonormal rows: NoReFT and DiReFT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.adapters.base import Adapter, Shift, register
from actshift.adapters.checks import check_rank
from actshift.adapters.factors import Factors, is_watched
from actshift.adapters.polar import nearest_orthonormal


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
        return None if is_watched(self) else Factors(self._seen(), self.write.T, down_bias=self.bias)

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
