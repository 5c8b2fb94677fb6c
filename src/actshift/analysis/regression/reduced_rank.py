"""Reduced-rank ridge regression in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actshift.analysis.regression.moments import Moments
from actshift.errors import ActshiftError

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges to choose from, in units of the mean variance of x over its coordinates."""
NEGLIGIBLE = 1e-11
"""Directions of x with less variance than this share of the largest are rounding errors."""


@dataclass(frozen=True)
class Affine:
    """The map x → U D x + b, with `down` D `[r, dx]`, `up` U `[dy, r]`, `bias` b `[dy]`, in float64."""

    down: Tensor
    up: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map `x [..., dx]` to `[..., dy]`."""
        return x @ self.down.to(x).T @ self.up.to(x).T + self.bias.to(x)


@dataclass(frozen=True)
class Fit:
    """A fitted map, the ridge that was chosen for it, and its mean squared error on held-out tokens."""

    map: Affine
    ridge: float
    error: float


class ReducedRank:
    """Solves min ‖Y - U D X - b‖² + λ ‖U D‖² over maps of rank r, for any r and λ, from one eigendecomposition.

    With the ridge solution W = C_yx (C_xx + λI)⁻¹ the answer is V_r V_rᵀ W, where V_r are the top eigenvectors of
    C_yx (C_xx + λI)⁻¹ C_xy; λ is `ridge` times the mean variance of a coordinate of x. A rank of 0 is the mean of y.

    Source: Mukherjee and Zhu, Reduced rank ridge regression (2011), with the mean left unpenalised.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[3.0], [5.0], [9.0]]))
    >>> ReducedRank(moments)(rank=1, ridge=0.0)(torch.tensor([[10.0]])).round().item()
    21.0
    """

    def __init__(self, moments: Moments) -> None:
        xx, self.xy, _ = moments.covariances()
        self.mean_x, self.mean_y = moments.mean_x, moments.mean_y
        values, self.vectors = torch.linalg.eigh(xx)
        self.values = values.clamp(min=0)
        self.unit = self.values.mean()
        self._solved: tuple[float, Tensor, Tensor, Tensor] | None = None

    def __call__(self, rank: int, ridge: float) -> Affine:
        """Return the best map of this rank."""
        weight, _, vectors = self._solve(ridge)
        up = vectors[:, :rank]
        down = up.T @ weight
        return Affine(down, up, self.mean_y - up @ (down @ self.mean_x))

    def gains(self, ridge: float) -> Tensor:
        """Return how much of the variance of y each further rank explains, the largest first `[dy]`."""
        return self._solve(ridge)[1]

    def _solve(self, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
        if self._solved is None or self._solved[0] != ridge:
            kept = self.values > NEGLIGIBLE * self.values[-1]
            inverse = torch.where(kept, 1 / (self.values + ridge * self.unit), torch.zeros_like(self.values))
            weight = self.xy.T @ (self.vectors * inverse) @ self.vectors.T
            fitted = weight @ self.xy
            values, vectors = torch.linalg.eigh((fitted + fitted.T) / 2)  # ascending
            self._solved = ridge, weight, values.flip(0).clamp(min=0), vectors.flip(1)
        return self._solved[1:]


def best_fit(
    seen: Moments, held_out: Moments, ranks: Iterable[int], ridges: Sequence[float] = RIDGES
) -> dict[int, Fit]:
    """Return for each rank the map fitted to `seen` with the ridge whose error on `held_out` is least.

    Raises ActshiftError where either holds too few tokens to tell.
    """
    if min(seen.count, held_out.count) < 2:
        raise ActshiftError(
            f"there are {seen.count} tokens to fit and {held_out.count} to check the fit, and both take 2 at least; "
            "give more rows, or longer ones."
        )
    solve, best = ReducedRank(seen), {}
    for ridge in ridges:
        for rank in ranks:
            fitted = solve(rank, ridge)
            error = held_out.error(fitted)
            if rank not in best or error < best[rank].error:
                best[rank] = Fit(fitted, ridge, error)
    return best
