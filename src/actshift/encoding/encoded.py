"""Rows as token ids: what encoding makes of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actshift.errors import ActshiftError

IGNORED = -100
"""The label of a token that the loss does not count."""

Ids = list[int]
Example = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids: `examples` of input_ids [seq] with labels, and how many rows were too long to be used.

    labels are [seq], or of a text with a class one number.
    """

    examples: list[Example]
    left_out: int

    @property
    def longest(self) -> int:
        """The length in tokens of the longest example."""
        return max(len(example["input_ids"]) for example in self.examples)

    @property
    def digest(self) -> str:
        """A fingerprint of all ids and labels, in order."""
        sha = hashlib.sha256()
        for example in self.examples:
            sha.update(json.dumps(example, sort_keys=True, separators=(",", ":")).encode())
        return sha.hexdigest()


def short_enough(lengths: Sequence[int], max_length: int, what: str = "row") -> list[int]:
    """Return the places of the lengths of no more than `max_length` tokens, and warn of the others.

    Raises ActshiftError where there are no such places.

    >>> short_enough([3, 2], max_length=8)
    [0, 1]
    """
    kept = [place for place, length in enumerate(lengths) if length <= max_length]
    if not kept:
        raise ActshiftError(
            f"Every {what} is longer than max_length {max_length}; the shortest has {min(lengths)} tokens, so raise it."
        )
    if left_out := len(lengths) - len(kept):
        warnings.warn(
            f"{left_out} of {len(lengths)} {what}s exceed max_length {max_length} and are left out.", stacklevel=3
        )
    return kept
