"""Rows as token ids: what encoding makes of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

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
