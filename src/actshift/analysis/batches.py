"""From rows or texts to the padded batches that a model is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.data import LABELLED, checked_rows
from actshift.data.collate import padded
from actshift.data.encode import Encoded, class_names, encode, encode_texts
from actshift.data.rows import columns_of
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
    """Return rows as batches of `input_ids`, `attention_mask` and `labels`, each `[batch, seq]`, padded on the right.

    Rows are texts, or have the columns prompt + completion, messages or text, and become the tokens and labels that
    training gives them: those of a prompt and of padding are -100. They keep their order. Rows for an encoder have a
    label a text `[batch]` or a tag a word, out of `labels` (the names that the rows have, if left out), or are pairs.
    Mere texts have no labels for a tokenizer that knows no end of a text, which is an encoder's.

    Raises ActshiftError for no rows, rows of another kind, and rows without a token to predict.

    >>> from actshift.demo import load_base
    >>> [batch] = token_batches([{"prompt": "what is", "completion": " one"}], load_base()[1])
    >>> list(batch)
    ['input_ids', 'attention_mask', 'labels']
    """
    examples = _encoded(_dataset(rows), tokenizer, max_length, labels).examples
    if not examples:
        raise ActshiftError("No row has a token to predict; a text needs two tokens at least.")
    return [padded(examples[start : start + batch_size], tokenizer) for start in range(0, len(examples), batch_size)]


def _encoded(rows: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    if tokenizer.eos_token_id is None and rows.column_names == ["text"]:
        return encode_texts(rows, tokenizer, max_length)
    return encode(rows, tokenizer, max_length, labels or class_names(rows))


def _dataset(rows: Rows | Dataset) -> Any:
    if not len(rows):
        raise ActshiftError("There are no rows; give at least one text, or one row of prompt and completion.")
    if hasattr(rows, "column_names"):
        return rows
    if all(isinstance(row, str) for row in rows):
        return require("datasets", "train").Dataset.from_dict({"text": list(rows)})
    if isinstance(rows[0], Mapping) and columns_of(list(rows[0]), LABELLED):
        return checked_rows(rows, "What was given", LABELLED)
    if all(isinstance(row, Mapping) for row in rows):
        return require("datasets", "train").Dataset.from_list([dict(row) for row in rows])  # type: ignore[arg-type]
    raise ActshiftError("Rows must be texts, or mappings with prompt and completion, messages or text, all of a kind.")
