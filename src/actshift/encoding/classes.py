"""Texts with a class, and texts in pairs, as an encoder reads them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.encoding.encoded import Encoded, Example
from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def class_names(rows: Dataset) -> tuple[str, ...]:
    """Return the distinct labels, or tags, of rows, in the order of the alphabet, numbers in that of their size.

    >>> from datasets import Dataset
    >>> class_names(Dataset.from_dict({"text": ["a", "b", "c"], "label": ["10", "9", "9"]}))
    ('9', '10')
    """
    if "label" in rows.column_names:
        names = set(rows["label"])
    elif "tags" in rows.column_names:
        names = {tag for tags in rows["tags"] for tag in tags}
    else:
        return ()
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def encode_classes(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]
) -> Encoded:
    """Return texts (or pairs of texts) with the index of their label among `labels`; a long one is cut, with a warning.

    Raises ActshiftError for a label that is not among `labels`.
    """
    examples = _texts(rows, tokenizer, max_length, pairs="text_pair" in rows.column_names)
    for number, (example, label) in enumerate(zip(examples, rows["label"], strict=True), start=1):
        example["labels"] = label_index(label, labels, number)
    return Encoded(examples, left_out=0)


def encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return each text, and its partner as `pair_` ids, encoded apart: for vectors that are to lie near each other."""
    first = _texts(rows, tokenizer, max_length)
    second = _texts(rows.remove_columns("text").rename_column("text_pair", "text"), tokenizer, max_length)
    pairs = zip(first, second, strict=True)
    return Encoded([{**one, **{f"pair_{name}": ids for name, ids in two.items()}} for one, two in pairs], left_out=0)


def encode_texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return texts without any label; a long one is cut, with a warning."""
    return Encoded(_texts(rows, tokenizer, max_length), left_out=0)


def label_index(label: str, labels: Sequence[str], row: int) -> int:
    """Return the place of the label of row number `row` among `labels`; raise ActshiftError where it has none."""
    if label not in labels:
        raise ActshiftError(
            f"Row {row} has the label {label!r}{did_you_mean(label, labels)}; the model knows {', '.join(labels)}."
        )
    return labels.index(label)


def _texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, pairs: bool = False) -> list[Example]:
    texts = [list(rows["text"]), *([list(rows["text_pair"])] if pairs else [])]
    return examples_of(tokens_of(tokenizer, max_length, *texts))


def tokens_of(tokenizer: Any, max_length: int, *texts: list[Any], **how: Any) -> Any:
    """Return what the tokenizer makes of texts, cut at `max_length` with a warning; `how` is what else it is told."""
    whole = tokenizer(*texts, verbose=False, **how)
    if cut := sum(len(ids) > max_length for ids in whole["input_ids"]):
        warnings.warn(f"{cut} of {len(texts[0])} rows exceed max_length {max_length} and are cut at it.", stacklevel=5)
        return tokenizer(*texts, truncation=True, max_length=max_length, verbose=False, **how)
    return whole


def examples_of(encoded: Any) -> list[Example]:
    """Return the ids of each text of a tokenizer's output, and their types where the model tells these apart."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]
