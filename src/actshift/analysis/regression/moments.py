"""Sums over tokens that a linear regression needs, and nothing else of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.analysis.regression.reduced_rank import Affine


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
