"""LoFiT's first phase: a scale for every attention head, and which heads it marks as worth steering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, register
from actshift.adapters.checks import check_weight, head_width
from actshift.errors import ActshiftError


class HeadScaleShift(Shift):
    """Δ(x) = A ⊙ x, with `scale [heads, d_head]` (A) zero at the start and an L1 penalty on it."""

    def __init__(self, heads: int, d_head: int, l1: float) -> None:
        super().__init__()
        self.l1 = l1
        self.scale = nn.Parameter(torch.zeros(heads, d_head))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., heads · d_head]` to the shift of that shape."""
        return self.scale.flatten() * x

    def penalty(self) -> Tensor | None:
        """Return l1 · ‖A‖₁ in float32, or None where l1 is 0."""
        return self.l1 * self.scale.abs().sum(dtype=torch.float32) if self.l1 else None


@register
@dataclass(frozen=True)
class HeadScale(Adapter):
    """Scale what every attention head gives: x ← (1 + A) ⊙ x, that is Δ(x) = A ⊙ x, d parameters a site.

    A is a vector of width d_head for each head. `l1` weighs the penalty l1 · ‖A‖₁ that every optimiser step adds
    to the loss; it makes A vanish on heads that do not matter, so that `head_scores` finds those that do. This is
    the first of LoFiT's phases; `HeadVector` is the second.

    Raises ActshiftError for a negative l1; at a site, where there are no attention heads.
    Source: Yin, Ye, Durrett, LoFiT, arXiv 2406.01563, its step "attention head selection". The authors' scripts use
    l1 = 1e-3 or 5e-4, by model and task. They start A at N(0, 1e-3), and we at zero, so that a fresh adapter is a
    no-op [ours].

    >>> HeadScale().parameter_count(2048, heads=32)
    2048
    """

    kind: ClassVar[str] = "head_scale"
    l1: float = 1e-3

    def __post_init__(self) -> None:
        """Check the weight of the penalty."""
        check_weight("l1", self.l1)

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a `HeadScaleShift` for a site of `width` d made of `heads`."""
        d_head = head_width(self.kind, width, heads)
        return HeadScaleShift(width // d_head, d_head, self.l1)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return d."""
        return width

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError where there are no heads, or they do not share the width evenly."""
        head_width(self.kind, width, heads)


def head_scores(scale: Tensor) -> Tensor:
    """Return how much each head matters, ‖A_head‖₂ `[heads]` in float32, from its scales `A [heads, d_head]`.

    Source: LoFiT, arXiv 2406.01563, "attention head selection".

    >>> head_scores(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [5.0, 1.0]
    """
    return torch.linalg.vector_norm(scale.detach().float(), dim=-1)


def top_heads(scores: Mapping[int, Tensor], k: int) -> dict[int, tuple[int, ...]]:
    """Return the k heads of highest score over all layers, as the heads of each layer that has any.

    `scores` gives each layer's `[heads]`. Among equal scores the earlier layer comes first, and in it the lower head.

    Raises ActshiftError unless k is a whole number from 1 to the number of heads, and the scores are finite.

    >>> top_heads({0: torch.tensor([1.0, 2.0]), 1: torch.tensor([2.0, 3.0])}, k=2)
    {0: (1,), 1: (1,)}
    """
    ranked = sorted((-score, layer, head) for layer, row in scores.items() for head, score in enumerate(row.tolist()))
    if type(k) is not int or not 1 <= k <= len(ranked):
        raise ActshiftError(f"the number of heads to keep must be from 1 to {len(ranked)}, got {k!r}.")
    if not all(torch.isfinite(row).all() for row in scores.values()):
        raise ActshiftError("a head's score is not finite: training has diverged; use a lower learning rate.")
    chosen = sorted((layer, head) for _, layer, head in ranked[:k])
    return {layer: tuple(head for at, head in chosen if at == layer) for layer in dict(chosen)}
