"""Prompts as a model reads them: within its context, and in batches that end together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from actshift.data import token_ids
from actshift.errors import ActshiftError, did_you_mean
from actshift.loading import context_length

LONG_PROMPTS = ("refuse", "truncate")
"""What to do about prompts that do not fit in the context: raise, or read the end of each, with a warning."""


def encode_prompts(
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    long_prompts: str = "refuse",
    add_special_tokens: bool = True,
) -> list[list[int]]:
    """Return the token ids of each prompt; of a too long one, if it is to be truncated, those that end it.

    Too long is what the model with this `config`, or its tokenizer, has no room for.
    `add_special_tokens=False` is for prompts that a chat template rendered, with all the special tokens it wants.

    Raises:
        ActshiftError: a prompt without a single token, one that leaves no room for `max_new_tokens` in the model's
            context while `long_prompts` is "refuse", or a `long_prompts` other than "refuse" and "truncate".
    """
    check_long_prompts(long_prompts)
    encoded = token_ids(tokenizer, prompts, add_special_tokens) if prompts else []
    if [] in encoded:
        raise ActshiftError(f"prompt {encoded.index([]) + 1} is empty, and this tokenizer adds no start token to it.")
    room = context_length(config, tokenizer) - max_new_tokens
    if room < 1:
        raise ActshiftError(
            f"max_new_tokens={max_new_tokens} leaves no room for a prompt: the model's context has "
            f"{room + max_new_tokens} tokens."
        )
    if long := [row for row, ids in enumerate(encoded) if len(ids) > room]:
        found = f"{len(long)} of {len(encoded)} prompts exceed {room} tokens"
        if long_prompts == "refuse":
            raise ActshiftError(
                f"{found}, which is the model's context of {room + max_new_tokens} less max_new_tokens="
                f"{max_new_tokens}; the first is prompt {long[0] + 1}, with {len(encoded[long[0]])}. "
                "Shorten them, lower max_new_tokens, or set long_prompts to 'truncate' to have their ends read."
            )
        warnings.warn(f"{found}; of these the end is read.", stacklevel=3)
    return [ids[-room:] for ids in encoded]


def check_long_prompts(choice: str) -> None:
    """Raise ActshiftError unless `choice` is one of `LONG_PROMPTS`."""
    if choice not in LONG_PROMPTS:
        near = did_you_mean(choice, LONG_PROMPTS)
        raise ActshiftError(f"long_prompts must be one of {', '.join(LONG_PROMPTS)}, got {choice!r}{near}.")


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask` `[batch, seq]`, int64, each row ending in its last token.

    Whatever side the tokenizer pads on: a model that generates goes on from the last column.

    >>> left_padded([[5, 6, 7], [8]], pad=0, device="cpu")["input_ids"].tolist()
    [[5, 6, 7], [0, 0, 8]]
    """
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
