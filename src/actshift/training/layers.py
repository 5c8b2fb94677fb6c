"""Which blocks a setting of indices and Python slices means, once the number of blocks is known."""

from __future__ import annotations

from collections.abc import Sequence

from actshift.errors import ActshiftError


def layer_indices(layers: Sequence[int | str], count: int) -> list[int]:
    """Return the block indices that numbers and Python slices mean in a model of `count` blocks.

    Raises ActshiftError for a slice that is malformed, reaches out of the model or selects nothing; a single
    index is checked where it is resolved.

    >>> layer_indices([0, "-2:"], 6)
    [0, 4, 5]
    """
    return [index for layer in layers for index in _indices(str(layer), count)]


def _indices(layer: str, count: int) -> Sequence[int]:
    parts = layer.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        chosen = slice(*numbers) if len(numbers) > 1 else None
        indices = [int(layer)] if chosen is None else range(*chosen.indices(count))
    except (ValueError, TypeError):
        raise ActshiftError(
            f"Layers {layer!r} is neither a block's index such as -1 nor a Python slice such as 4:8."
        ) from None
    bounds = numbers[:2] if chosen else []
    if not indices or any(bound is not None and not -count <= bound <= count for bound in bounds):
        raise ActshiftError(f"Layers {layer!r} is out of range: the model has {count} blocks, 0 to {count - 1}.")
    return indices
