"""LoFiT's second phase: one vector for each chosen attention head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, check_weight, head_width, register
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


class HeadVectorShift(Shift):
    """Δ(x) = v_h at each chosen head h and zero at the others, with `vector [K, d_head]` zero at the start."""

    def __init__(self, chosen: Sequence[int], heads: int, d_head: int) -> None:
        super().__init__()
        self.chosen, self.heads = tuple(chosen), heads
        self.vector = nn.Parameter(torch.zeros(len(self.chosen), d_head))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., heads · d_head]` to the vectors side by side `[heads · d_head]`, the same at every position."""
        # Laid out without an index tensor, which would be one more buffer to move, or a copy to the device each time.
        vectors, nothing = iter(self.vector.unbind()), self.vector.new_zeros(self.vector.shape[1])
        return torch.cat([next(vectors) if head in self.chosen else nothing for head in range(self.heads)])


@register
@dataclass(frozen=True)
class HeadVector(Adapter):
    """Add one learned vector to what each chosen attention head gives: Δ(x)_h = v_h, K · d_head parameters a site.

    `heads` are the indices of the K chosen heads, counted from 0 and kept in ascending order; None is all of them.
    Only their vectors are stored and trained. This is the second of LoFiT's phases, `HeadScale` the first.

    Raises ActshiftError for an empty choice, a duplicate, and what is no index; at a site, for an index that it does
    not have, and where there are no attention heads.
    Source: Yin, Ye, Durrett, LoFiT, arXiv 2406.01563, its step "bias tuning". They start v at N(0, 1e-3), and we at
    zero, so that a fresh adapter is a no-op [ours].

    >>> HeadVector(heads=(3, 17)).parameter_count(2048, heads=32)
    128
    """

    kind: ClassVar[str] = "head_vector"
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check the indices, and bring them (a list, in JSON) into ascending order."""
        if self.heads is None:
            return
        given = list(self.heads) if isinstance(self.heads, Sequence) and not isinstance(self.heads, str) else []
        if not given or not all(type(head) is int and head >= 0 for head in given) or len(set(given)) < len(given):
            raise ActshiftError(
                f"heads must be different head indices from 0 up such as (0, 3), or None for all; got {self.heads!r}."
            )
        object.__setattr__(self, "heads", tuple(sorted(given)))

    def build(self, width: int, heads: int | None = None) -> Shift:
        """Return a `HeadVectorShift` for a site of `width` d made of `heads`."""
        self.check_shape(width, heads)
        d_head = head_width(self.kind, width, heads)
        count = width // d_head
        return HeadVectorShift(range(count) if self.heads is None else self.heads, count, d_head)

    def parameter_count(self, width: int, heads: int | None = None) -> int:
        """Return K · d_head, which is d with all heads."""
        return width if self.heads is None else len(self.heads) * head_width(self.kind, width, heads)

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError where there are no heads, they share the width unevenly, or a chosen one is missing."""
        count = width // head_width(self.kind, width, heads)
        if self.heads is not None and self.heads[-1] >= count:
            raise ActshiftError(
                f"there is no head {self.heads[-1]} at a site of {count} heads; choose from 0 to {count - 1}."
            )
