"""From checked rows to token ids, by what the rows consist of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actshift.encoding.classes import encode_classes, encode_pairs
from actshift.encoding.encoded import Encoded
from actshift.encoding.language import encode_language
from actshift.encoding.tags import encode_tags

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Return `rows` as token ids with labels, at most `max_length` tokens each.

    Rows are prompt + completion, messages or text, for a language model; text (+ text_pair) with a label, or tokens
    with tags, whose names are `labels`; or text with text_pair, which become ids apart.

    Raises ActshiftError for what the tokenizer lacks, a label that is not among `labels`, or rows all too long.
    """
    columns = set(rows.column_names)
    if "label" in columns:
        return encode_classes(rows, tokenizer, max_length, labels)
    if "tags" in columns:
        return encode_tags(rows, tokenizer, max_length, labels)
    if "text_pair" in columns:
        return encode_pairs(rows, tokenizer, max_length)
    return encode_language(rows, tokenizer, max_length)
