"""What a run reads, as token ids and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actshift.encoding import Encoded, encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Examples:
    """What a run reads: the encoded rows that it trains on, and those that it is evaluated on, if any."""

    train: Encoded
    held_out: Encoded | None

    @classmethod
    def of(
        cls, rows: Dataset, eval_rows: Dataset | None, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Examples:
        """Encode both, as `encode` does."""
        held_out = encode(eval_rows, tokenizer, max_length) if eval_rows is not None else None
        return cls(encode(rows, tokenizer, max_length), held_out)

    @property
    def digest(self) -> str:
        """A fingerprint of all of them."""
        return self.train.digest + (self.held_out.digest if self.held_out else "")
