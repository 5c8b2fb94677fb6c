"""A vector whose length depends on the cosine of the activation with a condition vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.adapters.base import Adapter, Shift


class GatedVectorShift(Shift):
    """Δ(x) = |cos(x, c)| v, where the condition c, `condition [d]`, starts random and v, `vector [d]`, at zero."""

    def __init__(self, adapter: GatedVector, width: int, heads: int | None) -> None:
        super().__init__()
        self.condition = nn.Parameter(torch.randn(width))
        self.vector = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def set_direction(self, vector: Tensor) -> None:
        """Set both the condition and the added vector to `vector [d]`."""
        self.condition.copy_(vector)
        self.vector.copy_(vector)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`. The cosine is computed in at least float32."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        cosine = F.cosine_similarity(x.to(dtype), self.condition.to(dtype), dim=-1)
        return cosine.abs()[..., None].to(x.dtype) * self.vector

    def writes(self) -> list[Tensor]:
        """Return v."""
        return [self.vector]


@dataclass(frozen=True)
class GatedVector(Adapter):
    """Add a vector in proportion to the cosine with a condition: Δ(x) = |cos(x, c)| v, 2d parameters per site.

    The gate is between 0 and 1. It depends on how much of the activation lies along c, with either sign. Both c and v
    are trainable; c starts random, and v at zero. `Contrast.attach` sets both to a contrast vector.

    Source: conditional activation steering, arXiv 2409.05907: a condition vector decides where a behaviour
    vector is added, by the similarity of h with its projection on c, which is |cos(h, c)|. The paper adds v if the
    similarity of the prompt exceeds a threshold. A gate that is proportional to it, for every token, and c = v are the
    choices of https://github.com/wassname/steering-lite (cosine_gated). docs/method.md#gated-vector.

    >>> GatedVector().parameter_count(2048)
    4096
    >>> shift = GatedVector().build(2)
    >>> shift.set_direction(torch.tensor([0.0, 5.0]))
    >>> shift(torch.tensor([[3.0, 4.0], [7.0, 0.0]])).tolist()
    [[0.0, 4.0], [0.0, 0.0]]
    """

    kind: ClassVar[str] = "gated_vector"
    shift = GatedVectorShift
