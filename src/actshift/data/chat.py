"""Rows of text as a model meets them: chat turns rendered by its template, and its start token once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from actshift.errors import ActshiftError, require

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def to_prompt_completion(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return rows of messages as prompt + completion, both text, and other rows as they are.

    The tokenizer's chat template renders all but the last turn, with the opening of an answer, as the prompt, and
    the last turn, the assistant's, as the completion, without the end-of-text token that ends every completion.
    Other columns stay.

    Raises:
        ActshiftError: the rows have messages and the tokenizer has no chat template, or it refuses a row.
    """
    from jinja2 import TemplateError

    if "messages" not in rows.column_names:
        return rows
    if not tokenizer.chat_template:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} has no chat template to render messages with; "
            "give rows with prompt and completion, or a model made for chat."
        )
    rendered = []
    for number, messages in enumerate(rows["messages"], start=1):
        try:
            rendered.append(_render(messages, tokenizer))
        except TemplateError as error:
            raise ActshiftError(f"The chat template refuses the messages of row {number}: {error}.") from error
    turns = require("datasets", "train").Dataset.from_list(rendered)
    for beside in set(rows.column_names) - {"messages"}:
        turns = turns.add_column(beside, rows[beside])
    return turns


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the ids of each text as a model reads its beginning: after the tokenizer's start token, to go on from.

    The start token comes once, also where a text rendered by a chat template brings it along. What a tokenizer puts
    behind a text (BERT's [SEP], an end token) is left out, since a completion follows. `add_special_tokens=False`
    adds no start token either: that is how a rendered text is read, whose template has all the tokens it wants.
    """
    encoded = tokenizer(
        list(texts), add_special_tokens=add_special_tokens, return_special_tokens_mask=True, verbose=False
    )
    whole, added = (cast("list[list[int]]", encoded[name]) for name in ("input_ids", "special_tokens_mask"))
    closing = next((mask[::-1].index(0) for mask in added if 0 in mask), 0) if add_special_tokens else 0
    start = [tokenizer.bos_token_id] * 2
    return [ids[int(ids[:2] == start) : len(ids) - closing] for ids in whole]


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    before = cast(str, tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    whole = cast(str, tokenizer.apply_chat_template(messages, tokenize=False))
    if whole.startswith(before):
        completion = whole[len(before) :]
    else:  # the template opens an answer otherwise than it shows a finished one: what generation will see counts
        answer = messages[-1]["content"]
        _, shown, closing = whole.rpartition(answer.strip())
        completion = answer + closing if shown else answer
    if end := cast(str, tokenizer.eos_token):
        said, _, after = completion.rpartition(end)
        completion = said if said and not after.strip() else completion
    return {"prompt": before, "completion": completion}
