"""Words with tags, as an encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.encoding.classes import examples_of, label_index, tokens_of
from actshift.encoding.encoded import IGNORED, Encoded, Example
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Places = list[int | None]


def encode_tags(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    """Return words with the index of each one's tag at its first token; the other tokens' labels are `IGNORED`.

    Raises ActshiftError for a tag that is not among `labels`.
    """
    examples = []
    words = encode_words(rows["tokens"], tokenizer, max_length)
    for number, ((example, places), tags) in enumerate(zip(words, rows["tags"], strict=True), start=1):
        indices = [label_index(tag, labels, number) for tag in tags]
        examples.append({**example, "labels": [IGNORED if word is None else indices[word] for word in places]})
    return Encoded(examples, left_out=0)


def encode_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[Example, Places]]:
    """Return each row of words as ids, and for each of these the word that begins there, or None.

    Raises ActshiftError for a tokenizer that does not tell which word a token is of.
    """
    if not tokenizer.is_fast:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} does not tell which word a token is of; use a fast one."
        )
    encoded: Any = tokens_of(tokenizer, max_length, list(rows), is_split_into_words=True)
    return [(example, first_tokens(encoded.word_ids(row))) for row, example in enumerate(examples_of(encoded))]


def first_tokens(words: Sequence[int | None]) -> Places:
    """Return the word that begins at each token, None elsewhere; `words` are those that the tokens are of.

    >>> first_tokens([None, 0, 1, 1, 2, None])
    [None, 0, 1, None, 2, None]
    """
    return [word if word != before else None for before, word in zip([None, *words], words, strict=False)]
