"""LoFiT's second phase: one vector for each chosen attention head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from actshift.adapters.base import Adapter, Shift, register
from actshift.adapters.checks import head_width
from actshift.errors import ActshiftError


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
