"""Directional ablation: remove the part of an activation that lies along one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift
from actshift.adapters.functional import Factors, has_hooks


class AblationShift(Shift):
    """Δ(x) = -a v̂ v̂ᵀ x, where `vector [d]` starts random and the amount a, `scale [1]`, starts at zero."""

    def __init__(self, adapter: Ablation, width: int, heads: int | None) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width))
        self.scale = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def set_direction(self, vector: Tensor) -> None:
        """Remove the direction of `vector [d]` completely at strength 1."""
        self.vector.copy_(vector)
        self.scale.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., d]` to the shift `[..., d]`."""
        unit = _unit(self.vector)
        return -self.scale * (x @ unit)[..., None] * unit

    def factors(self) -> Factors | None:
        """Return the linear map of rank 1, or None if the module has hooks or is parametrised."""
        vector, scale = self._parameters.get("vector"), self._parameters.get("scale")
        if vector is None or scale is None or has_hooks(self):
            return None
        unit = _unit(vector)
        return Factors(unit[None], (-scale * unit)[:, None])

    def reads(self) -> list[Tensor]:
        """Return v as a matrix of one row."""
        return [self.vector[None]]

    def writes(self) -> list[Tensor]:
        """Return v."""
        return [self.vector]


@dataclass(frozen=True)
class Ablation(Adapter):
    """Remove the component along one direction: Δ(x) = -a v̂ v̂ᵀ x with v̂ = v / ‖v‖, d + 1 parameters per site.

    With a = 1, strength 1 removes the component, a strength between 0 and 1 removes this share, and 2 reflects it. Both
    v and a are trainable; v starts random, and a at zero. `Contrast.attach` sets v to a contrast vector and a to 1.

    Source: Arditi et al., arXiv 2406.11717, section 2.4 (directional ablation); the amount and the start: this project,
    docs/method.md#ablation.

    >>> Ablation().parameter_count(2048)
    2049
    >>> shift = Ablation().build(2)
    >>> shift.set_direction(torch.tensor([0.0, 5.0]))
    >>> (torch.tensor([3.0, 4.0]) + shift(torch.tensor([3.0, 4.0]))).tolist()
    [3.0, 0.0]
    """

    kind: ClassVar[str] = "ablation"
    shift = AblationShift


def _unit(vector: Tensor) -> Tensor:
    """Return `vector [d]` at length 1, computed in at least float32; the zero vector stays zero."""
    wide = vector.to(torch.promote_types(vector.dtype, torch.float32))
    return (wide / wide.norm().clamp_min(torch.finfo(torch.float32).tiny)).to(vector.dtype)
