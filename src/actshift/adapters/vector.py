"""A constant shift: steering by one learned vector a site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, register
from actshift.adapters.factors import Factors, has_hooks


class VectorShift(Shift):
    """Δ(x) = v, with `v [d]` zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to `v [d]`, which broadcasts over every position."""
        return self.vector

    def factors(self) -> Factors | None:
        """Return v as the bias of a map of rank 0."""
        if has_hooks(self):
            return None
        vector = self._parameters["vector"]  # where nn.Module keeps it, as in decoding its own lookup takes as long
        assert vector is not None
        nothing = vector.new_empty(0, len(vector))
        return Factors(nothing, nothing.mT, up_bias=vector)

    def writes(self) -> list[Tensor]:
        """Return v."""
        return [self.vector]


@register
@dataclass(frozen=True)
class Vector(Adapter):
    """Shift every activation by the same learned vector: Δ(x) = v, d parameters a site.

    Source: arXiv 2603.00425, the `vector` row of its parameterisations.

    >>> Vector().parameter_count(2048)
    2048
    """

    kind: ClassVar[str] = "vector"

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a `VectorShift` of `width` d."""
        return VectorShift(width)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return d."""
        return width
