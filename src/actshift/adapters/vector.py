"""A constant shift: one learned vector per site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift
from actshift.adapters.functional import Factors, has_hooks


class VectorShift(Shift):
    """Δ(x) = v, with `v [d]` initialised to zero."""

    def __init__(self, adapter: Vector, width: int, heads: int | None) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def set_direction(self, vector: Tensor) -> None:
        """Set v to `vector [d]`."""
        self.vector.copy_(vector)

    def forward(self, x: Tensor) -> Tensor:
        """Return `v [d]`, which broadcasts over all positions of `x [..., d]`."""
        return self.vector

    def factors(self) -> Factors | None:
        """Return v as the bias of a map of rank 0, or None if the module has hooks."""
        vector = self._parameters["vector"]  # skips nn.Module's attribute lookup, which is slow in decoding
        if vector is None or has_hooks(self):
            return None
        empty = vector.new_empty(0, len(vector))
        return Factors(empty, empty.mT, up_bias=vector)

    def writes(self) -> list[Tensor]:
        """Return v."""
        return [self.vector]


@dataclass(frozen=True)
class Vector(Adapter):
    """Add the same learned vector to every activation: Δ(x) = v, with `v [d]` starting at zero, d parameters per site.

    Source: arXiv 2603.00425, parameterisation "vector"; docs/method.md#vector.

    >>> Vector().parameter_count(2048)
    2048
    >>> Vector().build(4)(torch.ones(2, 3, 4)).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    kind: ClassVar[str] = "vector"
    shift = VectorShift
