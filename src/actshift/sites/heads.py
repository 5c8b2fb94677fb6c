"""The attention heads of a block: where they still sit side by side, before the output projection mixes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites.architectures import Names
from actshift.sites.blocks import Named
from actshift.sites.lookup import Found, find_all, row_of


class Heads(NamedTuple):
    """The output projection of a block's attention: its input is `heads` vectors of width / heads side by side."""

    found: Found
    width: int
    heads: int


def heads_of(name: str, block: nn.Module, config: Any, blocks: Sequence[Named]) -> Heads:
    """Return the output projection of one of the model's `blocks`, the width of its input and the query heads.

    The width is the projection's own, heads · d_head, which need not be that of the residual stream (Qwen3,
    Gemma-3). Under grouped-query attention the heads are the query heads, and each has its vector there.

    Raises ActshiftError for an architecture without a row, a block without such heads (linear attention, a
    convolution), naming the blocks that have them, and a projection whose input cannot be cut into the heads.
    """
    row = row_of(config, block, "attention_heads", "use site='post_block', which needs no table")
    if not (found := find_all(block, row.heads)):
        raise ActshiftError(_lacking(name, block, row.attention, [bool(find_all(b, row.heads)) for _, b in blocks]))
    module, heads = found[0].module, getattr(config, "num_attention_heads", None)
    width = getattr(module, "in_features", getattr(module, "nx", None))  # GPT-2's Conv1D calls it nx
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise ActshiftError(
            f"the heads of {name + found[0].suffix!r} ({type(module).__name__}) are not known: its input is {width} "
            f"wide and config.num_attention_heads is {heads}, where the first must be a multiple of the second; "
            "use site='post_attention'."
        )
    return Heads(found[0], width, heads)


def _lacking(name: str, block: nn.Module, attention: Names, with_heads: list[bool]) -> str:
    kinds = ", ".join(f"{found.suffix[1:]} ({type(found.module).__name__})" for found in find_all(block, attention))
    others = [layer for layer, has in enumerate(with_heads) if has]
    layers = f"steer the layers that have them, layers={others}, or " if others else ""
    return (
        f"attention_heads: block {name!r} ({type(block).__name__}) has no attention heads, it mixes tokens by "
        f"{kinds or 'something unknown'}; {layers}use site='post_attention' or 'post_block'."
    )
