"""Least squares from sums over batches: no activation is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actshift.errors import ActshiftError


class Moments:
    """The first two moments of pairs (x, y), `[dx]` and `[dy]`, summed over batches of tokens.

    Products are taken in float32 (float64 for float64 data) and summed in float64, about the mean of the first batch:
    a residual stream has a few huge coordinates, and squares about zero would lose the rest.

    Raises ActshiftError for values that are not finite.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]]))
    >>> moments.count, moments.mean_x.item(), moments.energy
    (2, 2.0, 20.0)
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in tokens `x [n, dx]` and `y [n, dy]`."""
        x, y = (_wide(values.detach()) for values in (x, y))
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise ActshiftError(
                "the activations are not finite: they overflow the model's dtype, or its weights are damaged; "
                "load the model in float32 or bfloat16."
            )
        if not len(x):
            return
        if not self.count:
            self._start(x, y)
        self.count += len(x)
        x, y = x - self.about_x.to(x.dtype), y - self.about_y.to(y.dtype)
        self.sum_x += x.sum(0)
        self.sum_y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.T @ y

    def _start(self, x: Tensor, y: Tensor) -> None:
        wide = {"device": x.device, "dtype": torch.float32 if x.device.type == "mps" else torch.float64}
        self.about_x, self.about_y = x.mean(0).to(**wide), y.mean(0).to(**wide)
        (dx, dy) = (x.shape[1], y.shape[1])
        self.sum_x, self.sum_y = torch.zeros(dx, **wide), torch.zeros(dy, **wide)
        self.xx, self.xy, self.yy = (torch.zeros(shape, **wide) for shape in ((dx, dx), (dx, dy), (dy, dy)))

    @property
    def mean_x(self) -> Tensor:
        """The mean of x."""
        return self.about_x + self.sum_x / self.count

    @property
    def mean_y(self) -> Tensor:
        """The mean of y."""
        return self.about_y + self.sum_y / self.count

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariances of x with x `[dx, dx]`, of x with y `[dx, dy]` and of y with y `[dy, dy]`."""
        x, y = self.sum_x / self.count, self.sum_y / self.count
        return (
            self.xx / self.count - torch.outer(x, x),
            self.xy / self.count - torch.outer(x, y),
            self.yy / self.count - torch.outer(y, y),
        )

    @property
    def energy(self) -> float:
        """The mean of ‖y‖²."""
        return (self.variance + self.mean_y.square().sum()).item()

    @property
    def variance(self) -> float:
        """The mean of ‖y - ȳ‖²."""
        return self.covariances()[2].trace().clamp(min=0).item()

    def error(self, fit: Affine) -> float:
        """Return the mean of ‖y - (U D x + b)‖² of an affine map."""
        xx, xy, yy = self.covariances()
        down, up = fit.down.to(xx), fit.up.to(xx)
        missed = self.mean_y - fit.bias.to(xx) - up @ (down @ self.mean_x)
        explained = 2 * ((down @ xy) * up.T).sum() - ((down @ xx @ down.T) * (up.T @ up)).sum()
        return (yy.trace() - explained + missed.square().sum()).clamp(min=0).item()

    def spectrum(self) -> list[float]:
        """Return the eigenvalues of the mean of y yᵀ, the largest first; they add up to the energy."""
        second = self.covariances()[2] + torch.outer(self.mean_y, self.mean_y)
        return torch.linalg.eigvalsh(second.cpu()).flip(0).clamp(min=0).tolist()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


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
