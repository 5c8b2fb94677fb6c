"""The nearest matrix with orthonormal rows."""

from __future__ import annotations

import torch
from torch import Tensor

from actshift.errors import ActshiftError

WELL_CONDITIONED = 1e-8
"""Down to this ratio of the Gram matrix's eigenvalues its inverse root is good to about 1e-8 in float64."""


def nearest_orthonormal(matrix: Tensor) -> Tensor:
    """Return the matrix with orthonormal rows that is nearest in the Frobenius norm, `[..., r, d]` in float64.

    It is the polar factor (M Mᵀ)^-1/2 M, taken through the Gram matrix `[r, r]`. Where M has nearly lost a row,
    the Gram matrix has lost it altogether, and the factor comes from M = U S Vᵀ as U Vᵀ; in directions that M has
    lost for good any orthonormal completion is equally near, and the SVD's is taken.

    Raises ActshiftError for values that are not finite.

    >>> nearest_orthonormal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1e-9]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    # Apple's GPUs have neither float64 nor an eigensolver.
    wide = matrix.detach().to("cpu" if matrix.device.type == "mps" else matrix.device, torch.float64)
    gram = wide @ wide.mT
    if not torch.isfinite(gram).all():
        raise ActshiftError("LoReFT's R is no longer finite: training has diverged; use a lower learning rate.")
    values, vectors = torch.linalg.eigh(gram)  # ascending
    if (values[..., 0] > WELL_CONDITIONED * values[..., -1]).all():
        return vectors @ ((vectors.mT @ wide) / values.sqrt()[..., None])
    left, _, right = torch.linalg.svd(wide, full_matrices=False)
    return left @ right
