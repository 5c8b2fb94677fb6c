"""From the activations of two sets of rows to the direction between them, and how well it tells them apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from actshift.errors import ActshiftError, did_you_mean

Direction = Callable[[Tensor, Tensor], Tensor]
FOLDS = 5


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = mean(positive) - mean(negative), `[d]`, of activations `[rows, d]` each; they need not be paired.

    Source: contrastive activation addition, arXiv 2312.06681.

    >>> mean_difference(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    tensor([1.5000, 0.5000])
    """
    return positive.mean(0) - negative.mean(0)


def principal_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """Return v = u uᵀ m, `[d]`: the mean m of the pairs' differences, on their first principal axis u.

    u maximises Σ_i (u · (p_i - n_i))² over unit vectors. The differences are not centred, which would take away what
    they have in common. v points from negative to positive whatever the sign of u, and is as long as the mean
    projections on u are apart. Row i of both `[rows, d]` is a pair.

    Source: representation reading by PCA of pairs' differences, arXiv 2310.01405 §3.1; the length is [ours].

    >>> principal_difference(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    tensor([2., 0.])
    """
    differences = (positive - negative).double()
    wide = differences.shape[0] < differences.shape[1]
    # The first eigenvector of the smaller of D Dᵀ and Dᵀ D, in place of a full decomposition of D.
    gram = differences @ differences.T if wide else differences.T @ differences
    axis = torch.linalg.eigh(gram).eigenvectors[:, -1]
    axis = differences.T @ axis if wide else axis
    axis = axis / axis.norm().clamp_min(torch.finfo(axis.dtype).tiny)
    return (axis * (axis @ differences.mean(0))).to(positive.dtype)


METHODS: dict[str, Direction] = {"mean": mean_difference, "pca": principal_difference}
PAIRED = ("pca",)
"""The methods that take row i of both sides as a pair."""


def direction_of(method: str) -> Direction:
    """Return the function that finds the direction.

    Raises ActshiftError for an unknown method.

    >>> direction_of("mean") is mean_difference
    True
    """
    if method not in METHODS:
        raise ActshiftError(
            f"There is no method {method!r}{did_you_mean(method, METHODS)}; there are {' and '.join(METHODS)}."
        )
    return METHODS[method]


def separation(positive: Tensor, negative: Tensor, direction: Direction) -> float:
    """Return the share of rows that the direction puts on their side of a threshold, both sides counted alike.

    Every fifth row of both sides is left out in turn (fewer folds where there are fewer rows); the direction and the
    threshold, halfway between the mean projections, are those of the other rows. 1 is every row, 0.5 is chance.

    >>> separation(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.0], [-1.0]]), mean_difference)
    1.0
    """
    folds = min(FOLDS, len(positive), len(negative))
    right = torch.zeros(2)
    for fold in range(folds):
        out, other = _fold(len(positive), fold, folds), _fold(len(negative), fold, folds)
        v = direction(positive[~out], negative[~other])
        threshold = (positive[~out].mean(0) + negative[~other].mean(0)) @ v / 2
        right[0] += (positive[out] @ v > threshold).sum()
        right[1] += (negative[other] @ v < threshold).sum()
    return ((right[0] / len(positive) + right[1] / len(negative)) / 2).item()


def _fold(rows: int, fold: int, folds: int) -> Tensor:
    return torch.arange(rows) % folds == fold
