"""Reduced-rank ridge regression from sums over batches, without storing activations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from actshift.errors import ActshiftError
from actshift.gradients.taps import OVERFLOW

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # candidates, in units of the mean variance of a coordinate of x
NEGLIGIBLE = 1e-11  # directions of x with less than this share of the largest variance are rounding errors


@dataclass(frozen=True)
class Affine:
    """The map x → U D x + b, with `down` D `[r, dx]`, `up` U `[dy, r]` and `bias` b `[dy]`, in float64."""

    down: Tensor
    up: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map `x [..., dx]` to `[..., dy]`."""
        return x @ self.down.to(x).T @ self.up.to(x).T + self.bias.to(x)


class Fit(NamedTuple):
    """A fitted map, the ridge that was chosen for it, and its mean squared error on validation tokens."""

    map: Affine
    ridge: float
    error: float


class Moments:
    """First and second moments of pairs (x, y), `[dx]` and `[dy]`, accumulated over batches of tokens.

    Products are taken in float32 (float64 for float64 data) and summed in float64 (float32 on Apple GPUs), centred on
    the mean of the first batch: without it, the few huge coordinates of a residual stream would cause rounding errors.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]]))
    >>> moments.count, moments.mean_x.item(), moments.energy
    (2, 2.0, 20.0)
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add tokens `x [n, dx]` and `y [n, dy]`. Raises ActshiftError if a value is not finite."""
        x, y = (values.detach() if values.dtype == torch.float64 else values.detach().float() for values in (x, y))
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise ActshiftError(f"The activations are not finite: {OVERFLOW}.")
        if not len(x):
            return
        if not self.count:
            dtype = torch.float32 if x.device.type == "mps" else torch.float64
            self.centre_x, self.centre_y = x.mean(0).to(dtype), y.mean(0).to(x.device, dtype)
            self.sum_x, self.sum_y = torch.zeros_like(self.centre_x), torch.zeros_like(self.centre_y)
            dx, dy = x.shape[1], y.shape[1]
            self.xx, self.xy, self.yy = (self.sum_x.new_zeros(shape) for shape in ((dx, dx), (dx, dy), (dy, dy)))
        self.count += len(x)
        x, y = x - self.centre_x.to(x.dtype), y - self.centre_y.to(y.dtype)
        self.sum_x += x.sum(0)
        self.sum_y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.T @ y

    @property
    def mean_x(self) -> Tensor:
        """The mean of x."""
        return self.centre_x + self.sum_x / self.count

    @property
    def mean_y(self) -> Tensor:
        """The mean of y."""
        return self.centre_y + self.sum_y / self.count

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariances of x with x `[dx, dx]`, of x with y `[dx, dy]` and of y with y `[dy, dy]`."""
        x, y = self.sum_x / self.count, self.sum_y / self.count
        products = (self.xx, x, x), (self.xy, x, y), (self.yy, y, y)
        xx, xy, yy = (total / self.count - torch.outer(left, right) for total, left, right in products)
        return xx, xy, yy

    @property
    def energy(self) -> float:
        """The mean of ‖y‖²."""
        return (self.variance + self.mean_y.square().sum()).item()

    @property
    def variance(self) -> float:
        """The mean of ‖y - ȳ‖²."""
        return self.covariances()[2].trace().clamp(min=0).item()

    def r2(self, error: float) -> float:
        """Return the share of the variance of y that a map with this mean squared error explains."""
        return 1 - error / variance if (variance := self.variance) else 0.0

    def error(self, fit: Affine) -> float:
        """Return the mean of ‖y - (U D x + b)‖² of an affine map."""
        xx, xy, yy = self.covariances()
        down, up = fit.down.to(xx), fit.up.to(xx)
        offset = self.mean_y - fit.bias.to(xx) - up @ (down @ self.mean_x)
        explained = 2 * ((down @ xy) * up.T).sum() - ((down @ xx @ down.T) * (up.T @ up)).sum()
        return (yy.trace() - explained + offset.square().sum()).clamp(min=0).item()

    def spectrum(self) -> list[float]:
        """Return the eigenvalues of the mean of y yᵀ in descending order. Their sum is `energy`."""
        second = self.covariances()[2] + torch.outer(self.mean_y, self.mean_y)
        return torch.linalg.eigvalsh(second.cpu()).flip(0).clamp(min=0).tolist()


def reduced_rank_maps(
    moments: Moments, ranks: Sequence[int], ridges: Sequence[float]
) -> Iterator[tuple[int, float, Affine]]:
    """Yield each rank and ridge with the map that minimises ‖Y - U D X - b‖² + λ ‖U D‖².

    With the ridge solution W = C_yx (C_xx + λI)⁻¹, the minimum is V_r V_rᵀ W, where V_r are the top r eigenvectors of
    C_yx (C_xx + λI)⁻¹ C_xy. λ is `ridge` times the mean variance of a coordinate of x. Rank 0 gives the mean of y.

    Source: Mukherjee and Zhu, Reduced rank ridge regression (2011), with an unpenalised mean.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[3.0], [5.0], [9.0]]))
    >>> [(_, _, fit)] = reduced_rank_maps(moments, [1], [0.0])
    >>> fit(torch.tensor([[10.0]])).round().item()
    21.0
    """
    xx, xy, _ = moments.covariances()
    values, vectors = torch.linalg.eigh(xx)
    values, mean_x, mean_y = values.clamp(min=0), moments.mean_x, moments.mean_y
    for ridge in ridges:
        inverse = (1 / (values + ridge * values.mean())).where(values > NEGLIGIBLE * values[-1], 0)
        weight = xy.T @ (vectors * inverse) @ vectors.T
        fitted = weight @ xy
        top = torch.linalg.eigh((fitted + fitted.T) / 2).eigenvectors.flip(1)  # eigh sorts in ascending order
        for rank in ranks:
            up = top[:, :rank]
            down = up.T @ weight
            yield rank, ridge, Affine(down, up, mean_y - up @ (down @ mean_x))


def best_fit(
    fitted: Moments, validation: Moments, ranks: Sequence[int], ridges: Sequence[float] = RIDGES
) -> dict[int, Fit]:
    """Return for each rank the map fitted to `fitted` with the ridge that has the least error on `validation`.

    Raises ActshiftError if either set has fewer than two tokens.
    """
    if min(fitted.count, validation.count) < 2:
        counts = f"{fitted.count} tokens to fit and {validation.count} for validation"
        raise ActshiftError(f"There are {counts}, but both sets need two; give more rows, or longer ones.")
    best = dict[int, Fit]()
    for rank, ridge, affine in reduced_rank_maps(fitted, ranks, ridges):
        error = validation.error(affine)
        if rank not in best or error < best[rank].error:
            best[rank] = Fit(affine, ridge, error)
    return best
