"""Encode checked rows as token ids and labels."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from actshift.data.chat import to_prompt_completion, token_ids
from actshift.data.pairs import PAIR
from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


IGNORED = -100
"""The label of a token that does not count in the loss."""

Example = dict[str, Any]
"""A tokenized row: `input_ids` [seq], `labels` ([seq] or one class index), and other inputs of the model."""


@dataclass(frozen=True)
class Encoded:
    """Tokenized rows, and the number of rows that were skipped because they were too long."""

    examples: list[Example]
    left_out: int

    @property
    def longest(self) -> int:
        """The number of tokens in the longest example."""
        return max(len(example["input_ids"]) for example in self.examples)

    @property
    def digest(self) -> str:
        """A SHA-256 fingerprint of all fields of all examples, in order."""
        sha = hashlib.sha256()
        for example in self.examples:
            sha.update(json.dumps(example, sort_keys=True, separators=(",", ":")).encode())
        return sha.hexdigest()


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Return rows as token ids and labels. The columns of the rows select the encoding.

    * prompt and completion, or messages: the prompt's ids exactly as in generation, the completion's ids, and the
      end-of-text token. The labels of the prompt are `IGNORED`. Rows longer than `max_length` are skipped, because a
      prompt without its start or a completion without its end would teach something else.
    * text: every token counts, and a long text is split into pieces of `max_length` tokens.
    * text (and text_pair) and label: the label is the index of the class in `labels`. Long texts are truncated.
    * tokens and tags: each word's tag is the label of its first token. Long rows are truncated.
    * text and text_pair: two separate texts without labels, the second one under the prefix `pair_`.

    Args:
        rows: checked rows, as `load_rows` returns them.
        tokenizer: the model's tokenizer.
        max_length: the largest number of tokens of an example.
        labels: the names of the classes or tags, in the order of their indices.

    Raises:
        ActshiftError: the tokenizer lacks a required token, template or feature, a label or tag is not in `labels`,
            or every row is too long.
    """
    columns = set(rows.column_names)
    if "label" in columns:
        return _encode_classes(rows, tokenizer, max_length, labels)
    if "tags" in columns:
        return _encode_tags(rows, tokenizer, max_length, labels)
    if "text_pair" in columns:
        return _encode_pairs(rows, tokenizer, max_length)
    return _encode_language(rows, tokenizer, max_length)


def encode_texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return texts as token ids without labels. Truncate long texts with a warning."""
    return Encoded(_tokenize_texts(tokenizer, max_length, rows["text"]), left_out=0)


def encode_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[Example, list[int | None]]]:
    """Return rows of words as token ids. Truncate long rows with a warning.

    Returns:
        For each row, its example and a list [seq] with the index of the word that starts at each token, or None.

    Raises:
        ActshiftError: the tokenizer does not map tokens to words.
    """
    if not tokenizer.is_fast:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} does not map tokens to words; use a fast tokenizer."
        )
    encoded: Any = _tokenize(tokenizer, max_length, list(rows), is_split_into_words=True)
    return [(example, _word_starts(encoded.word_ids(index))) for index, example in enumerate(_examples(encoded))]


def class_names(rows: Dataset) -> tuple[str, ...]:
    """Return the distinct labels or tags of rows: numbers by value, then names in alphabetical order.

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


def label_index(label: str, labels: Sequence[str], row: int) -> int:
    """Return the index of the label of row number `row` in `labels`.

    Raises:
        ActshiftError: the label is not in `labels`.
    """
    if label not in labels:
        raise ActshiftError(
            f"Row {row} has the label {label!r}{did_you_mean(label, labels)}; the model knows {', '.join(labels)}."
        )
    return labels.index(label)


def short_enough(lengths: Sequence[int], max_length: int, noun: str = "row") -> list[int]:
    """Return the indices of the lengths (in tokens) up to `max_length`, and warn about the others.

    Raises:
        ActshiftError: every length exceeds `max_length`.

    >>> short_enough([3, 2], max_length=8)
    [0, 1]
    """
    kept = [index for index, length in enumerate(lengths) if length <= max_length]
    if not kept:
        raise ActshiftError(
            f"Every {noun} is longer than max_length {max_length}; the shortest has {min(lengths)} tokens, so raise it."
        )
    if left_out := len(lengths) - len(kept):
        warnings.warn(
            f"{left_out} of {len(lengths)} {noun}s exceed max_length {max_length} and are left out.", stacklevel=3
        )
    return kept


def _encode_language(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    if tokenizer.eos_token_id is None:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} has no end-of-text token, which ends every completion; "
            "set tokenizer.eos_token and save it."
        )
    is_rendered = "messages" in rows.column_names
    rows = to_prompt_completion(rows, tokenizer)
    if "text" in rows.column_names:
        return Encoded(_split_texts(rows["text"], tokenizer, max_length), left_out=0)
    examples = _encode_completions(list(rows["prompt"]), list(rows["completion"]), tokenizer, is_rendered)
    kept = short_enough([len(example["input_ids"]) for example in examples], max_length)
    return Encoded([examples[index] for index in kept], left_out=len(examples) - len(kept))


def _split_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    pieces: list[list[int]] = []
    for ids in token_ids(tokenizer, texts):
        ids = _append_end(ids, tokenizer)
        pieces += [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces if len(piece) > 1]


def _encode_completions(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase, is_rendered: bool
) -> list[Example]:
    prompt_ids = token_ids(tokenizer, prompts, add_special_tokens=not is_rendered)
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    text_ids = token_ids(tokenizer, texts, add_special_tokens=not is_rendered)
    examples: list[Example] = []
    for prompt, text, completion in zip(prompt_ids, text_ids, _continuation_ids(completions, tokenizer), strict=True):
        # If a token spans the boundary, the prompt must keep the ids that it has in generation.
        target = text[len(prompt) :] if text[: len(prompt)] == prompt else completion
        target = _append_end(target, tokenizer)
        examples.append({"input_ids": prompt + target, "labels": [IGNORED] * len(prompt) + target})
    return examples


def _continuation_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the ids that each text has after another text. SentencePiece adds a space before the first word."""
    [newline], after_newline, alone = (
        token_ids(tokenizer, batch, add_special_tokens=False)
        for batch in (["\n"], ["\n" + text for text in texts], texts)
    )
    # A tokenizer that merges the newline with the text does not add a space, so the text's own ids are right.
    return [
        after[len(newline) :] if after[: len(newline)] == newline else ids
        for after, ids in zip(after_newline, alone, strict=True)
    ]


def _append_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = cast(int, tokenizer.eos_token_id)
    return ids if ids[-1:] == [end] else [*ids, end]


def _encode_classes(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]
) -> Encoded:
    columns = [column for column in ("text", "text_pair") if column in rows.column_names]
    examples = _tokenize_texts(tokenizer, max_length, *(rows[column] for column in columns))
    for number, (example, label) in enumerate(zip(examples, rows["label"], strict=True), start=1):
        example["labels"] = label_index(label, labels, number)
    return Encoded(examples, left_out=0)


def _encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    first, second = (_tokenize_texts(tokenizer, max_length, rows[column]) for column in ("text", "text_pair"))
    prefixed = [{f"{PAIR}{name}": ids for name, ids in example.items()} for example in second]
    return Encoded([{**example, **partner} for example, partner in zip(first, prefixed, strict=True)], left_out=0)


def _encode_tags(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    examples: list[Example] = []
    encoded = encode_words(rows["tokens"], tokenizer, max_length)
    for number, ((example, words), tags) in enumerate(zip(encoded, rows["tags"], strict=True), start=1):
        indices = [label_index(tag, labels, number) for tag in tags]
        examples.append({**example, "labels": [IGNORED if word is None else indices[word] for word in words]})
    return Encoded(examples, left_out=0)


def _tokenize_texts(tokenizer: PreTrainedTokenizerBase, max_length: int, *columns: Sequence[str]) -> list[Example]:
    return _examples(_tokenize(tokenizer, max_length, *map(list, columns)))


def _tokenize(tokenizer: Any, max_length: int, *columns: list[Any], **options: Any) -> Any:
    """Return the tokenizer's output, truncated to `max_length` with a warning."""
    encoded = tokenizer(*columns, verbose=False, **options)
    if count := sum(len(ids) > max_length for ids in encoded["input_ids"]):
        warnings.warn(
            f"{count} of {len(columns[0])} rows exceed max_length {max_length} and are truncated.", stacklevel=5
        )
        return tokenizer(*columns, truncation=True, max_length=max_length, verbose=False, **options)
    return encoded


def _examples(encoded: Any) -> list[Example]:
    """Return one example per text of a tokenizer's output. Token types are kept if the tokenizer returns them."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]


def _word_starts(words: Sequence[int | None]) -> list[int | None]:
    """Return the index of the word that starts at each token, or None. `words` has the word of each token.

    >>> _word_starts([None, 0, 1, 1, 2, None])
    [None, 0, 1, None, 2, None]
    """
    return [word if word != before else None for before, word in zip([None, *words], words, strict=False)]
