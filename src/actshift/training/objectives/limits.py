"""What preferences and rewards cannot be trained with, said before a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_settings(settings: TrainSettings) -> None:
    """Raise ActshiftError for settings that only supervised learning can follow."""
    for name, wanted in (("init", "default"), ("group_by_length", False), ("cache_prefix", "off")):
        value = getattr(settings, name)
        if value != wanted and value != "reference":
            raise ActshiftError(
                f"{name} {value} goes by the completions of rows for sft; leave it out for {settings.objective}."
            )


def check_room(lengths: Sequence[int], what: str, settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ActshiftError where one of the rows, of so many tokens each, exceeds the context of the model."""
    context = _context(settings, tokenizer)
    if long := [row for row, length in enumerate(lengths, start=1) if length > context]:
        raise ActshiftError(
            f"{len(long)} of {len(lengths)} rows exceed the model's context of {context} tokens with {what}; the first "
            f"is row {long[0]}, with {lengths[long[0] - 1]}. Shorten them, or set max_length to leave them out."
        )


def _context(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> int:
    """The context of the model, or that of its tokenizer where the settings name no model."""
    from actshift.loading import context_length, load_config

    if not settings.model:
        return tokenizer.model_max_length
    return context_length(load_config(settings.model, settings.trust_remote_code), tokenizer)
