"""The nearest matrix with orthonormal rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import pi, sqrt

import torch
from torch import Tensor

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
