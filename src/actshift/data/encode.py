"""Encode checked rows as token ids and labels."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from actshift.data.chat import is_chat, render_turns, token_ids
from actshift.data.pairs import PAIR
from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_BATCH = 1_000  # rows to tokenize at a time
IGNORE_INDEX = -100  # the label of a token that does not count in the loss
EncodedExample = dict[str, Any]
"""A tokenized row: `input_ids` [seq], `labels` ([seq] or one class index), and other inputs of the model."""


@dataclass(frozen=True)
class Encoded:
    """Tokenized rows, and the number of rows that were skipped because they were too long."""

    examples: list[EncodedExample]
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


def encode(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    labels: Sequence[str] = (),
    turns: Literal["last", "each", "joined"] = "last",
) -> Encoded:
    """Return checked rows as token ids and labels. The columns of the rows select the encoding.

    * prompt and completion, or messages: the prompt's ids exactly as in generation with the labels `IGNORE_INDEX`, the
      completion's ids, and the end-of-text token. Rows longer than `max_length` are skipped. `turns` chooses the
      completions of a chat: the last turn of the assistant, or each one as an example of its own. "joined" examples of
      a chat are one example wherever the next prompt continues the earlier turn token for token.
    * text: every token counts, and a long text is split into pieces of `max_length` tokens.
    * text (and text_pair) and label: the label is the index of the class in `labels`. Long texts are truncated.
    * tokens and tags: the index of each word's tag is the label of its first token. Long rows are truncated.
    * text and text_pair: two separate texts without labels, the second one under the prefix `pair_`.

    Raises:
        ActshiftError: the tokenizer lacks a token, template or feature, a label is unknown, or every row is too long.
    """
    if "label" in rows.column_names:
        return _encode_classes(rows, tokenizer, max_length, labels)
    if "tags" in rows.column_names:
        return _encode_tags(rows, tokenizer, max_length, labels)
    if "text_pair" in rows.column_names:
        return _encode_pairs(rows, tokenizer, max_length)
    return _encode_language(rows, tokenizer, max_length, turns)


def encode_texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return texts as token ids without labels. Truncate long texts with a warning."""
    return Encoded(_tokenize_texts(tokenizer, max_length, rows["text"]), left_out=0)


def encode_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[EncodedExample, list[int | None]]]:
    """Return each row of words as an example, and the index of the word that starts at each token, or None.

    Long rows are truncated with a warning. Raise ActshiftError if the tokenizer does not map tokens to words.
    """
    if not tokenizer.is_fast:
        name = tokenizer.name_or_path
        raise ActshiftError(f"The tokenizer of {name} does not map tokens to words; use a fast tokenizer.")
    encoded = _tokenize(tokenizer, max_length, list(rows), is_split_into_words=True)
    examples = _examples(encoded)
    words = [encoded.word_ids(index) for index in range(len(examples))]
    starts = [[word if word != before else None for before, word in pairwise([None, *ids])] for ids in words]
    return list(zip(examples, starts, strict=True))


def class_names(rows: Dataset) -> tuple[str, ...]:
    """Return the distinct labels or tags of rows: numbers by value, then names in alphabetical order.

    >>> from datasets import Dataset
    >>> class_names(Dataset.from_dict({"text": ["a", "b", "c"], "label": ["10", "9", "9"]}))
    ('9', '10')
    """
    tags = rows["tags"] if "tags" in rows.column_names else ()
    names = set(rows["label"] if "label" in rows.column_names else chain.from_iterable(tags))
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def label_index(label: str, labels: Sequence[str], row: int) -> int:
    """Return the index of the label of row number `row` in `labels`, or raise ActshiftError if it is not there."""
    if label in labels:
        return labels.index(label)
    hint = did_you_mean(label, labels)
    raise ActshiftError(f"Row {row} has the label {label!r}{hint}; the model knows {', '.join(labels)}.")


def indices_within(lengths: Sequence[int], max_length: int, noun: str = "row") -> list[int]:
    """Return the indices of the lengths (in tokens) up to `max_length`, and warn about the others.

    Raises:
        ActshiftError: every length exceeds `max_length`.

    >>> indices_within([3, 2], max_length=8)
    [0, 1]
    """
    kept = [index for index, length in enumerate(lengths) if length <= max_length]
    if not kept:
        fix = f"the shortest has {min(lengths)} tokens. Shorten it, or raise max_length up to the model's context"
        raise ActshiftError(f"Every {noun} is longer than max_length {max_length}; {fix}.")
    if left_out := len(lengths) - len(kept):
        problem = f"{left_out} of {len(lengths)} {noun}s exceed max_length {max_length} and are left out."
        warnings.warn(problem, stacklevel=3)
    return kept


def _encode_language(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, turns: str) -> Encoded:
    if tokenizer.eos_token_id is None:
        name = tokenizer.name_or_path
        raise ActshiftError(f"The tokenizer of {name} has no end-of-text token; set tokenizer.eos_token and save it.")
    if "text" in rows.column_names:
        all_ids = [_append_end(ids, tokenizer) for ids in token_ids(tokenizer, rows["text"])]
        pieces = [ids[start : start + max_length] for ids in all_ids for start in range(0, len(ids), max_length)]
        return Encoded([{"input_ids": piece, "labels": piece} for piece in pieces if len(piece) > 1], left_out=0)
    if is_chat(rows):
        examples = _encode_chats(rows, tokenizer, turns)
    else:
        examples = encode_completions(list(rows["prompt"]), list(rows["completion"]), tokenizer)
    kept = indices_within([len(example["input_ids"]) for example in examples], max_length)
    return Encoded([examples[index] for index in kept], left_out=len(examples) - len(kept))


def _encode_chats(rows: Dataset, tokenizer: PreTrainedTokenizerBase, turns: str) -> list[EncodedExample]:
    chats = render_turns(rows, tokenizer, every=turns != "last")
    prompts, completions = zip(*chain.from_iterable(chats), strict=True)
    examples = encode_completions(list(prompts), list(completions), tokenizer, is_rendered=True)
    if turns != "joined":
        return examples
    joined: list[EncodedExample] = []
    remaining, added = iter(examples), {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    for chat in chats:
        parts = [next(remaining)]
        for later in islice(remaining, len(chat) - 1):
            if end := _shared_end(parts[-1], later, tokenizer, added):
                labels = parts[-1]["labels"][:end] + later["labels"][end:]
                parts[-1] = {"input_ids": later["input_ids"], "labels": labels}
            else:
                parts.append(later)
        joined += parts
    return joined


def _shared_end(
    earlier: EncodedExample, later: EncodedExample, tokenizer: PreTrainedTokenizerBase, added: set[int]
) -> int | None:
    """Return the length of the turns of `earlier` at the start of the prompt of `later`, or None if they differ.

    A turn ends with the end-of-text token. If the template ends turns otherwise, it ends with its last added token,
    which only white space may follow.
    """
    ids, start = earlier["input_ids"], later["input_ids"][: later["labels"].count(IGNORE_INDEX)]
    end = len(ids)
    if start[:end] != ids:
        end -= 1
        while end > 0 and ids[end - 1] not in added and not str(tokenizer.decode(ids[end - 1 : end])).strip():
            end -= 1
        if ids[end - 1] not in added or earlier["labels"][end - 1] == IGNORE_INDEX or start[:end] != ids[:end]:
            return None
    return end


def encode_completions(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase, is_rendered: bool = False
) -> list[EncodedExample]:
    """Return prompts and their completions, with the end-of-text token, as token ids and labels.

    `is_rendered` is for prompts of a chat template, which have all special tokens. A thousand rows are encoded at
    a time, because a tokenizer's output takes several times the memory of its ids.
    """
    examples: list[EncodedExample] = []
    same: dict[int, int] = {}  # one object for all equal ids, which are most of the memory otherwise
    for start in range(0, len(prompts), _BATCH):
        batch = slice(start, start + _BATCH)
        for prompt, target in _completion_ids(prompts[batch], completions[batch], tokenizer, is_rendered):
            prompt, target = ([same.setdefault(token, token) for token in ids] for ids in (prompt, target))
            examples.append({"input_ids": prompt + target, "labels": [IGNORE_INDEX] * len(prompt) + target})
    return examples


def _completion_ids(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase, is_rendered: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the ids of each prompt and of its completion, which ends with the end-of-text token."""
    prompt_ids = token_ids(tokenizer, prompts, add_special_tokens=not is_rendered)
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    text_ids = token_ids(tokenizer, texts, add_special_tokens=not is_rendered)
    for prompt, text, completion in zip(prompt_ids, text_ids, _continuation_ids(completions, tokenizer), strict=True):
        # If a token spans the boundary, the prompt must keep the ids that it has in generation.
        yield prompt, _append_end(text[len(prompt) :] if text[: len(prompt)] == prompt else completion, tokenizer)


def _continuation_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the ids that each text has after another text. SentencePiece adds a space before the first word."""
    batches = (["\n"], ["\n" + text for text in texts], texts)
    [newline], after_newline, alone = (token_ids(tokenizer, batch, add_special_tokens=False) for batch in batches)
    # A tokenizer that merges the newline with the text does not add a space, so the text's own ids are right.
    return [
        after[len(newline) :] if after[: len(newline)] == newline else ids
        for after, ids in zip(after_newline, alone, strict=True)
    ]


def _append_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = cast(int, tokenizer.eos_token_id)
    return ids if ids[-1:] == [end] else [*ids, end]


def _encode_classes(rows: Dataset, tokenizer: Any, max_length: int, labels: Sequence[str]) -> Encoded:
    columns = [rows[column] for column in ("text", "text_pair") if column in rows.column_names]
    examples = _tokenize_texts(tokenizer, max_length, *columns)
    indices = (label_index(label, labels, number) for number, label in enumerate(rows["label"], start=1))
    return Encoded([example | {"labels": index} for example, index in zip(examples, indices, strict=True)], left_out=0)


def _encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    first, second = (_tokenize_texts(tokenizer, max_length, rows[column]) for column in ("text", "text_pair"))
    prefixed = ({f"{PAIR}{name}": ids for name, ids in example.items()} for example in second)
    return Encoded([example | partner for example, partner in zip(first, prefixed, strict=True)], left_out=0)


def _encode_tags(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    examples: list[EncodedExample] = []
    encoded = encode_words(rows["tokens"], tokenizer, max_length)
    for number, ((example, words), tags) in enumerate(zip(encoded, rows["tags"], strict=True), start=1):
        indices = [label_index(tag, labels, number) for tag in tags]
        examples.append({**example, "labels": [IGNORE_INDEX if word is None else indices[word] for word in words]})
    return Encoded(examples, left_out=0)


def _tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, max_length: int, *columns: Sequence[str]
) -> list[EncodedExample]:
    return _examples(_tokenize(tokenizer, max_length, *map(list, columns)))


def _tokenize(tokenizer: Any, max_length: int, *columns: list[Any], **options: Any) -> Any:
    """Return the tokenizer's output, truncated to `max_length` with a warning."""
    encoded = tokenizer(*columns, verbose=False, **options)
    if count := sum(len(ids) > max_length for ids in encoded["input_ids"]):
        problem = f"{count} of {len(columns[0])} rows exceed max_length {max_length} and are truncated."
        warnings.warn(problem, stacklevel=5)
        return tokenizer(*columns, truncation=True, max_length=max_length, verbose=False, **options)
    return encoded


def _examples(encoded: Any) -> list[EncodedExample]:
    """Return one example per text of a tokenizer's output. Token types are kept if the tokenizer returns them."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]
