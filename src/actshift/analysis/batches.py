"""Turn rows or texts into padded batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.data import LABELLED, check_rows
from actshift.data.collate import pad_batch
from actshift.data.encode import class_names, encode, encode_texts
from actshift.data.rows import find_columns
from actshift.errors import ActshiftError, require

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Rows = Sequence[str] | Sequence[Mapping[str, Any]]


def token_batches(
    rows: Rows | Dataset,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int = 8,
    max_length: int = 512,
    labels: Sequence[str] = (),
) -> list[dict[str, Tensor]]:
    """Tokenize rows into batches of `input_ids`, `attention_mask` and `labels`, in order and padded on the right.

    Each tensor is `[batch, seq]` int64. Labels are the ids of the tokens to predict, and -100 for prompts and padding,
    as in training. The labels of a text classifier are `[batch]` class indices; pairs of texts have the inputs
    `pair_input_ids` and `pair_attention_mask` instead of labels. Plain texts have no labels if the tokenizer has no
    end-of-text token, as is usual for encoders.

    Args:
        rows: Texts, or rows with prompt + completion, messages or text. For encoders: text + label, tokens + tags, or
            text + text_pair.
        max_length: Longest row in tokens. A longer text becomes several rows, or is cut for an encoder. A longer prompt
            with its completion is left out, with a warning.
        labels: Names of the classes or tags in the order of their indices, by default those in the rows, sorted.

    Raises:
        ActshiftError: There are no rows, their columns are not supported, or no row has a token to predict.

    >>> from actshift.demo import load_base
    >>> [batch] = token_batches([{"prompt": "what is", "completion": " one"}], load_base()[1])
    >>> list(batch)
    ['input_ids', 'attention_mask', 'labels']
    """
    dataset = _dataset(rows)
    if tokenizer.eos_token_id is None and dataset.column_names == ["text"]:
        examples = encode_texts(dataset, tokenizer, max_length).examples
    else:
        examples = encode(dataset, tokenizer, max_length, labels or class_names(dataset)).examples
    if not examples:
        raise ActshiftError("No row has a token to predict; a text needs at least two tokens.")
    return [pad_batch(examples[start : start + batch_size], tokenizer) for start in range(0, len(examples), batch_size)]


def _dataset(rows: Any) -> Dataset:
    if not len(rows):
        raise ActshiftError("There are no rows; give at least one text, or one row of prompt and completion.")
    if hasattr(rows, "column_names"):
        return rows
    if isinstance(rows[0], Mapping) and (find_columns(list(rows[0]), LABELLED) or "messages" in rows[0]):
        return check_rows(rows, "the given rows", (*LABELLED, ("messages",)))
    if all(isinstance(row, str) for row in rows):
        rows = [{"text": row} for row in rows]
    if all(isinstance(row, Mapping) for row in rows):
        return require("datasets", "train").Dataset.from_list([dict(row) for row in rows])
    raise ActshiftError("Rows must be texts, or mappings with prompt and completion, messages or text, and not a mix.")
