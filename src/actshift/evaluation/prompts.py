"""Tokenize prompts within the model's context, and pad them on the left for generation."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.data import render_prompt, token_ids
from actshift.data.chat import Message, check_characters
from actshift.errors import ActshiftError, check_choice
from actshift.loading import context_length

LONG_PROMPTS = ("refuse", "truncate")  # prompts beyond the context: raise an error, or keep their ends and warn


def encode_prompts(
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    max_new_tokens: int,
    long_prompts: str = "refuse",
    add_special_tokens: bool = True,
) -> list[list[int]]:
    """Return the token ids of each prompt, such that `max_new_tokens` more fit in the context.

    Arguments are those of `generate_completions`.

    Raises:
        ActshiftError: A prompt is not valid text or has no token, a prompt is too long and `long_prompts` is "refuse",
            the context has no room for any prompt, or `long_prompts` is unknown.
    """
    check_choice("long_prompts", long_prompts, LONG_PROMPTS)
    texts: list[str] = []
    for number, prompt in enumerate(prompts, start=1):
        texts.append(prompt if isinstance(prompt, str) else render_prompt(prompt, tokenizer, f"prompt {number}"))
        check_characters(texts[-1], f"Prompt {number}")
    encoded = token_ids(tokenizer, texts, add_special_tokens) if prompts else []
    if chats := [row for row, prompt in enumerate(prompts) if not isinstance(prompt, str)]:
        rendered = token_ids(tokenizer, [texts[row] for row in chats], add_special_tokens=False)
        for row, ids in zip(chats, rendered, strict=True):
            encoded[row] = ids
    if [] in encoded:
        raise ActshiftError(f"Prompt {encoded.index([]) + 1} is empty, and this tokenizer adds no start token to it.")
    context = context_length(config, tokenizer)
    room = context - max_new_tokens
    if room < 1:
        fact = f"the model's context has {context} tokens"
        raise ActshiftError(f"max_new_tokens={max_new_tokens} leaves no room for a prompt: {fact}.")
    if too_long := [row for row, ids in enumerate(encoded) if len(ids) > room]:
        problem = f"{len(too_long)} of {len(encoded)} prompts exceed {room} tokens"
        if long_prompts == "refuse":
            raise ActshiftError(
                f"{problem}, which is the model's context of {context} less max_new_tokens={max_new_tokens}; "
                f"the first is prompt {too_long[0] + 1}, with {len(encoded[too_long[0]])}. Shorten them, lower "
                "max_new_tokens, or set long_prompts to 'truncate' to keep only their ends."
            )
        warnings.warn(f"{problem}; only the end of each is used.", stacklevel=3)
    return [ids[-room:] for ids in encoded]


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask` `[batch, tokens]`, int64, with every row's last token in the last column.

    The tokenizer's own padding side is ignored, because generation continues from the last column.

    >>> pad_left([[5, 6, 7], [8]], pad=0, device="cpu")["input_ids"].tolist()
    [[5, 6, 7], [0, 0, 8]]
    """
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
