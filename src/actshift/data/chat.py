"""Render chat messages with a chat template, and tokenize text that a completion follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError, require

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def to_prompt_completion(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return rows of messages as prompt and completion texts. Return rows without messages unchanged.

    The prompt is all turns but the last in the chat template, with the start of an answer. The completion is the last
    turn, which is the assistant's, without the end-of-text token. Other columns are kept.

    Raises:
        ActshiftError: the tokenizer has no chat template for the messages, or the template rejects a row.
    """
    from jinja2 import TemplateError

    if "messages" not in rows.column_names:
        return rows
    if not tokenizer.chat_template:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} has no chat template to render messages with; "
            "use rows with prompt and completion, or a chat model."
        )
    rendered: list[dict[str, Any]] = []
    for number, row in enumerate(cast("Iterable[dict[str, Any]]", rows), start=1):
        try:
            rendered.append({**row, **_render(row["messages"], tokenizer)})
        except TemplateError as error:
            raise ActshiftError(f"The chat template rejects the messages of row {number}: {error}.") from error
    return require("datasets", "train").Dataset.from_list(rendered).remove_columns("messages")


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the token ids of texts that a completion follows.

    Each text has the tokenizer's start token exactly once, even if a chat template has rendered one. Tokens that a
    tokenizer appends to a text (BERT's [SEP], an end token) are removed. Texts that a chat template has rendered have
    all their special tokens, so `add_special_tokens` is False for them.
    """
    options: dict[str, Any] = {"add_special_tokens": add_special_tokens, "return_special_tokens_mask": True}
    encoded = tokenizer(list(texts), verbose=False, **options)
    all_ids, masks = (cast("list[list[int]]", encoded[name]) for name in ("input_ids", "special_tokens_mask"))
    appended = next((mask[::-1].index(0) for mask in masks if 0 in mask), 0) if add_special_tokens else 0
    doubled_start = [tokenizer.bos_token_id] * 2
    return [ids[int(ids[:2] == doubled_start) : len(ids) - appended] for ids in all_ids]


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    prompt = cast(str, tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    chat = cast(str, tokenizer.apply_chat_template(messages, tokenize=False))
    if chat.startswith(prompt):
        completion = chat[len(prompt) :]
    else:
        # The template starts a new answer differently from a finished one. Training must use the same prompt as
        # generation, so keep the prompt and append the answer.
        answer = messages[-1]["content"]
        _, match, closing = chat.rpartition(answer.strip())
        completion = answer + closing if match else answer
    if end := cast(str, tokenizer.eos_token):
        before_end, _, after_end = completion.rpartition(end)
        completion = before_end if before_end and not after_end.strip() else completion
    return {"prompt": prompt, "completion": completion}
