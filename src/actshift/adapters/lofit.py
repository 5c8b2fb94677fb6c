"""The adapters of LoFiT: per-head scales, which select attention heads (phase 1), and per-head vectors (phase 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import HeadAdapter, Shift, check_penalty_weight
from actshift.errors import ActshiftError, is_longer, show

MAX_HEADS = 10_000  # of one site


class HeadScaleShift(Shift):
    """Δ(x) = A ⊙ x with an L1 penalty on A, stored as `scale [heads, d_head]` and initialised to zero."""

    def __init__(self, adapter: HeadScale, width: int, heads: int) -> None:
        super().__init__()
        self.l1 = adapter.l1
        self.scale = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., heads · d_head]` to the shift of the same shape."""
        return self.scale.flatten() * x

    def penalty(self) -> Tensor | None:
        """Return l1 · ‖A‖₁ in float32, or None if l1 is 0."""
        return self.l1 * self.scale.abs().sum(dtype=torch.float32) if self.l1 else None


@dataclass(frozen=True)
class HeadScale(HeadAdapter):
    """Scale the output of every attention head: Δ(x) = A ⊙ x, so x becomes (1 + A) ⊙ x, d parameters per site.

    `A [heads, d_head]` starts at zero. The L1 penalty keeps A near zero on heads that do not matter, and `head_scores`
    ranks the heads by A. This is phase 1 of LoFiT; `HeadVector` is phase 2.

    Args:
        l1: weight of the penalty l1 · ‖A‖₁, which is added to the loss of every optimiser step. 0 for no penalty.

    Raises:
        ActshiftError: a negative or non-finite l1; from `build`, a site without attention heads.

    Source: Yin, Ye, Durrett, LoFiT, arXiv 2406.01563, step "attention head selection"; docs/method.md#lofit. The
    authors' scripts use l1 = 1e-3 or 5e-4, depending on model and task, and initialise A from N(0, 1e-3). The start at
    zero: this project, docs/method.md#initialisation.

    >>> HeadScale().parameter_count(2048, heads=32)
    2048
    """

    kind: ClassVar[str] = "head_scale"
    shift = HeadScaleShift
    l1: float = 1e-3

    def __post_init__(self) -> None:
        check_penalty_weight("l1", self.l1)


def head_scores(scale: Tensor) -> Tensor:
    """Return the importance of each head, ‖A_head‖₂ `[heads]` in float32, for scales `A [heads, d_head]`.

    Source: LoFiT, arXiv 2406.01563, step "attention head selection".

    >>> head_scores(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [5.0, 1.0]
    """
    return torch.linalg.vector_norm(scale.detach().float(), dim=-1)


def top_heads(scores: Mapping[int, Tensor], k: int) -> dict[int, tuple[int, ...]]:
    """Return the k heads with the highest scores over all layers, as ascending head indices by layer.

    Args:
        scores: the scores `[heads]` of each layer. Ties go to the earlier layer, then to the lower head index.
        k: the number of heads to keep, over all layers. A layer without a chosen head is not in the result.

    Raises:
        ActshiftError: k is not an int from 1 to the number of heads, or a score is not finite.

    >>> top_heads({0: torch.tensor([1.0, 2.0]), 1: torch.tensor([2.0, 3.0])}, k=2)
    {0: (1,), 1: (1,)}
    """
    ranked = sorted((-score, layer, head) for layer, row in scores.items() for head, score in enumerate(row.tolist()))
    if type(k) is not int or not 1 <= k <= len(ranked):
        raise ActshiftError(f"The number of heads to keep must be from 1 to {len(ranked)}, got {k!r}.")
    if not all(torch.isfinite(row).all() for row in scores.values()):
        raise ActshiftError("A head's score is not finite: training has diverged. Use a lower learning rate.")
    chosen = sorted((layer, head) for _, layer, head in ranked[:k])
    return {layer: tuple(head for at, head in chosen if at == layer) for layer in dict(chosen)}


class HeadVectorShift(Shift):
    """Δ(x)_h = v_h at each chosen head h and zero at the others, with `vector [K, d_head]` initialised to zero."""

    def __init__(self, adapter: HeadVector, width: int, heads: int) -> None:
        super().__init__()
        self.chosen, self.heads = adapter.heads or tuple(range(heads)), heads
        self.vector = nn.Parameter(torch.zeros(len(self.chosen), width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated vectors `[heads · d_head]`, which broadcast over all positions of `x`."""
        # Without an index tensor, which would be another buffer to move, or a copy to the device in every call.
        vectors, zeros = iter(self.vector.unbind()), self.vector.new_zeros(self.vector.shape[1])
        return torch.cat([next(vectors) if head in self.chosen else zeros for head in range(self.heads)])


@dataclass(frozen=True)
class HeadVector(HeadAdapter):
    """Add a learned vector to the output of each chosen attention head: Δ(x)_h = v_h, K · d_head parameters per site.

    Only the vectors of the K chosen heads exist: `vector [K, d_head]`. This is phase 2 of LoFiT, after `HeadScale`.

    Args:
        heads: indices of the chosen heads from 0, stored in ascending order. None for all heads of the site.

    Raises:
        ActshiftError: not distinct head indices; from `build`, a site without attention heads or without a chosen one.

    Source: LoFiT, arXiv 2406.01563, step "bias tuning"; docs/method.md#lofit. The start at zero is as in `HeadScale`.

    >>> HeadVector(heads=(3, 17)).parameter_count(2048, heads=32)
    128
    """

    kind: ClassVar[str] = "head_vector"
    shift = HeadVectorShift
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given: Any = self.heads
        if given is None:
            return
        is_list = isinstance(given, Sequence) and not isinstance(given, str) and not is_longer(given, MAX_HEADS)
        heads: list[Any] = list(given) if is_list else []
        if not heads or not all(type(head) is int and head >= 0 for head in heads) or len(set(heads)) < len(heads):
            allowed = f"at most {MAX_HEADS:,} different head indices from 0 up such as (0, 3), or None for all"
            raise ActshiftError(f"heads must be {allowed}; got {show(given)}.")
        object.__setattr__(self, "heads", tuple(sorted(heads)))  # JSON stores a list

    def check_shape(self, width: int, heads: int | None = None) -> None:
        """Raise ActshiftError if the site has no attention heads, uneven ones, or lacks a chosen head."""
        super().check_shape(width, heads)
        if self.heads and heads and self.heads[-1] >= heads:
            last = self.heads[-1]
            raise ActshiftError(f"There is no head {last} at a site of {heads} heads; choose from 0 to {heads - 1}.")
