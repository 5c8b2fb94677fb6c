"""Texts with a class, texts in pairs, and words with tags, as an encoder reads them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.encoding.encoded import IGNORED, Encoded, Example
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
        example["labels"] = _index(label, labels, number)
    return Encoded(examples, left_out=0)


def encode_tags(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    """Return words with the index of each one's tag at its first token; the other tokens' labels are `IGNORED`.

    Raises ActshiftError for a tag that is not among `labels`.
    """
    if not tokenizer.is_fast:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} does not tell which word a token is of; use a fast one."
        )
    encoded = _tokens(tokenizer, max_length, list(rows["tokens"]), is_split_into_words=True)
    examples = _examples(encoded)
    for number, (example, tags) in enumerate(zip(examples, rows["tags"], strict=True), start=1):
        words, indices = encoded.word_ids(number - 1), [_index(tag, labels, number) for tag in tags]
        example["labels"] = [
            indices[word] if word is not None and (at == 0 or words[at - 1] != word) else IGNORED
            for at, word in enumerate(words)
        ]
    return Encoded(examples, left_out=0)


def encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return each text, and its partner as `pair_` ids, encoded apart: for vectors that are to lie near each other."""
    first = _texts(rows, tokenizer, max_length)
    second = _texts(rows.remove_columns("text").rename_column("text_pair", "text"), tokenizer, max_length)
    pairs = zip(first, second, strict=True)
    return Encoded([{**one, **{f"pair_{name}": ids for name, ids in two.items()}} for one, two in pairs], left_out=0)


def _texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, pairs: bool = False) -> list[Example]:
    texts = [list(rows["text"]), *([list(rows["text_pair"])] if pairs else [])]
    return _examples(_tokens(tokenizer, max_length, *texts))


def _tokens(tokenizer: Any, max_length: int, *texts: list[Any], **how: Any) -> Any:
    whole = tokenizer(*texts, verbose=False, **how)
    if cut := sum(len(ids) > max_length for ids in whole["input_ids"]):
        warnings.warn(f"{cut} of {len(texts[0])} rows exceed max_length {max_length} and are cut at it.", stacklevel=5)
        return tokenizer(*texts, truncation=True, max_length=max_length, verbose=False, **how)
    return whole


def _examples(encoded: Any) -> list[Example]:
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]


def _index(label: str, labels: Sequence[str], row: int) -> int:
    if label not in labels:
        raise ActshiftError(
            f"Row {row} has the label {label!r}{did_you_mean(label, labels)}; the model knows {', '.join(labels)}."
        )
    return labels.index(label)
