"""What several adapters ask of their fields and of the site they stand at."""

from __future__ import annotations

import math
from typing import Any

from actshift.errors import ActshiftError


def check_rank(rank: Any, width: int | None = None) -> None:
    """Raise ActshiftError unless the rank is a whole number from 1 up, and up to `width` where one is given.

    >>> check_rank(8, width=64)
    """
    if type(rank) is not int or rank < 1:
        raise ActshiftError(f"rank must be a whole number from 1 up, got {rank!r}.")
    if width is not None and rank > width:
        raise ActshiftError(
            f"rank {rank} is above the site's width {width}; use a rank from 1 to {width} (8 is the usual choice)."
        )


def check_weight(name: str, value: Any) -> None:
    """Raise ActshiftError unless a penalty's weight is a finite number from 0 up.

    >>> check_weight("l1", 1e-3)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ActshiftError(f"{name} must be a number from 0 (no penalty) up, such as 0.001; got {value!r}.")


def head_width(kind: str, width: int, heads: int | None) -> int:
    """Return d_head, the width of one of the `heads` that make up a site of `width` d.

    Raises ActshiftError at a site without heads, and where they do not share the width evenly.

    >>> head_width("jola", 64, heads=4)
    16
    """
    if heads is None:
        raise ActshiftError(
            f"adapter {kind!r} steers attention heads, and this site has none; use site='attention_heads'."
        )
    if heads < 1 or width % heads:
        raise ActshiftError(
            f"adapter {kind!r} needs heads of equal width, and {heads} heads cannot share a width of {width} evenly."
        )
    return width // heads
