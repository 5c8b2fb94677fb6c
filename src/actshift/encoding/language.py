"""Prompts with completions, chats and texts as token ids and labels, the way generation will meet them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from actshift.data import to_prompt_completion, token_ids
from actshift.encoding.encoded import IGNORED, Encoded, Example, Ids, short_enough
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def encode_language(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return `rows` as token ids with labels, at most `max_length` tokens each.

    A prompt + completion row is the prompt's ids, exactly as generation begins, the completion's ids and the
    end-of-text token; the labels of the prompt are `IGNORED`. A row longer than `max_length` is left out, since a
    prompt without its beginning, or a completion without its end, would teach something else. A text counts
    whole, and is cut into pieces of `max_length`.

    Raises:
        ActshiftError: the tokenizer has no end-of-text token or no chat template for messages, or every row is
            too long.
    """
    if tokenizer.eos_token_id is None:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} has no end-of-text token, which ends every completion; "
            "set tokenizer.eos_token and save it."
        )
    rendered = "messages" in rows.column_names
    rows = to_prompt_completion(rows, tokenizer)
    if "text" in rows.column_names:
        return Encoded(_text(rows["text"], tokenizer, max_length), left_out=0)
    whole = _pairs(rows["prompt"], rows["completion"], tokenizer, rendered)
    kept = short_enough([len(example["input_ids"]) for example in whole], max_length)
    return Encoded([whole[place] for place in kept], left_out=len(whole) - len(kept))


def _text(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    pieces = []
    for ids in token_ids(tokenizer, texts):
        ids = _ended(ids, tokenizer)
        pieces += [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces if len(piece) > 1]


def _pairs(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: PreTrainedTokenizerBase, rendered: bool
) -> list[Example]:
    prompts, completions = list(prompts), list(completions)
    before = token_ids(tokenizer, prompts, add_special_tokens=not rendered)
    whole = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    joint = token_ids(tokenizer, whole, add_special_tokens=not rendered)
    alone = _continuations(completions, tokenizer)
    examples = []
    for prompt, both, completion in zip(before, joint, alone, strict=True):
        # Where a token spans the boundary, the prompt must keep the ids it has on its own.
        rest = both[len(prompt) :] if both[: len(prompt)] == prompt else completion
        rest = _ended(rest, tokenizer)
        examples.append({"input_ids": prompt + rest, "labels": [IGNORED] * len(prompt) + rest})
    return examples


def _continuations(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[Ids]:
    """Return the ids of each text as they are after another: SentencePiece puts a space before what it reads first."""
    [first], later, alone = (
        token_ids(tokenizer, some, add_special_tokens=False)
        for some in (["\n"], ["\n" + text for text in texts], texts)
    )
    # A line's end that melts into the text says nothing; the tokenizers that let it put no space there.
    return [
        after[len(first) :] if after[: len(first)] == first else ids for after, ids in zip(later, alone, strict=True)
    ]


def _ended(ids: Ids, tokenizer: PreTrainedTokenizerBase) -> Ids:
    end = cast(int, tokenizer.eos_token_id)
    return ids if ids[-1:] == [end] else [*ids, end]
