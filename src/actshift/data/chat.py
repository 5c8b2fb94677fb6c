"""Render chat messages with a chat template, find the completions in them, and tokenize texts that one follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from actshift.data.layouts import TEMPLATE
from actshift.data.template import ChatTemplate, Message, Turn
from actshift.errors import ActshiftError, find_surrogate, require

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_NO_TEMPLATE = " to render messages with; use rows with prompt and completion, or a chat model"


def is_chat(rows: Dataset) -> bool:
    """Return whether rows have messages, or a prompt or a preferred completion that is a list of messages."""
    first = rows[0] if len(rows) else {}
    return "messages" in rows.column_names or any(isinstance(first.get(name), list) for name in ("prompt", "chosen"))


def to_prompt_completion(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return rows of messages as prompt and completion texts. Return rows without messages unchanged.

    The prompt is all turns but the last in the chat template, with the start of an answer. The completion is the last
    turn, which is the assistant's, without the end-of-text token. A prompt of messages without a completion is rendered
    alone. Other columns are kept.

    Raises:
        ActshiftError: as `render_turns`.
    """
    if not is_chat(rows):
        return rows
    rendered: list[dict[str, Any]] = []
    chats = render_turns(rows, tokenizer, every=False, learned=False)
    for row, turns in zip(cast("Iterable[dict[str, Any]]", rows), chats, strict=True):
        kept = {name: value for name, value in row.items() if name not in ("messages", *TEMPLATE)}
        answered = "messages" in row or "completion" in row
        rendered.append({**kept, **(turns[-1]._asdict() if answered else {"prompt": turns[-1].prompt})})
    return require("datasets", "train").Dataset.from_list(rendered)


def render_turns(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, every: bool, learned: bool = True
) -> list[list[Turn]]:
    """Return the assistant's turns of each chat: all of them but one that opens the chat, or only the last one.

    The turns of a prompt and a completion that are lists of messages are those in the completion. A prompt without a
    completion gives one turn with an empty completion. If the template does not write an answer at all, its content is
    the completion, unless it is to be `learned`.

    Raises:
        ActshiftError: the tokenizer has no chat template, the template rejects a row or does not use all of it, or the
            completion cannot be found in it. The message names the row, counted from 1.
    """
    check_template(tokenizer, _NO_TEMPLATE)
    chats: list[list[Turn]] = []
    checked: set[str] = set()  # the features of rows that the template is known to use
    for number, row in enumerate(cast("Iterable[dict[str, Any]]", rows), start=1):
        template, (history, answers) = ChatTemplate(tokenizer, row, f"row {number}", learned), _split_chat(row, number)
        messages = [*history, *answers]
        if (features := template.features(messages)) - checked:
            template.check_used(messages, features)
            checked |= features
        if not answers:
            chats.append([Turn(template.prompt(history), "")])
            continue
        targets = [
            index for index in range(max(len(history), 1), len(messages)) if messages[index].get("role") == "assistant"
        ]
        chats.append([template.turn(messages[:index], messages[index]) for index in targets[0 if every else -1 :]])
    return chats


def render_prompt(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, place: str = "the prompt", **options: Any
) -> str:
    """Return messages in the chat template, with the start of an answer, as in training.

    Args:
        place: the name of the prompt in messages of errors.
        options: `tools` and `chat_template_kwargs`, as in the columns of rows.

    Raises:
        ActshiftError: there is no chat template, it rejects the messages, or they end with an answer.
    """
    check_template(tokenizer, _NO_TEMPLATE)
    if not messages or messages[-1].get("role") == "assistant":
        raise ActshiftError(f"The messages of {place} must end with a turn to answer, such as a user's.")
    template = ChatTemplate(tokenizer, options, place)
    template.check_used(messages, template.features(messages))
    return template.prompt(messages)


def check_template(tokenizer: PreTrainedTokenizerBase, fix: str = "; leave out --chat, or add --no-chat") -> None:
    """Raise ActshiftError if a tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise ActshiftError(f"The tokenizer of {tokenizer.name_or_path} has no chat template{fix}.")


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the token ids of texts that a completion follows.

    Each text has the tokenizer's start token exactly once, even if a chat template has rendered one. Tokens that a
    tokenizer appends to a text (BERT's [SEP], an end token) are removed. Texts that a chat template has rendered have
    all their special tokens, so `add_special_tokens` is False for them.

    Raises:
        ActshiftError: a text contains half of a surrogate pair, which is no character.
    """
    for number, text in enumerate(texts, start=1):
        check_characters(text, f"Text {number}")
    options: dict[str, Any] = {"add_special_tokens": add_special_tokens, "return_special_tokens_mask": True}
    encoded = tokenizer(list(texts), verbose=False, **options)
    all_ids, masks = (cast("list[list[int]]", encoded[name]) for name in ("input_ids", "special_tokens_mask"))
    appended = next((mask[::-1].index(0) for mask in masks if 0 in mask), 0) if add_special_tokens else 0
    doubled_start = [tokenizer.bos_token_id] * 2
    return [ids[int(ids[:2] == doubled_start) : len(ids) - appended] for ids in all_ids]


def check_characters(text: str, name: str) -> None:
    """Raise ActshiftError if a text, called `name`, contains a lone surrogate, which no tokenizer can encode."""
    if (index := find_surrogate(text)) is not None:
        problem = f"{name} contains U+{ord(text[index]):04X} after {index} characters"
        raise ActshiftError(f"{problem}, which is half of a character or a byte that is not UTF-8.")


def _split_chat(row: Mapping[str, Any], number: int) -> tuple[Sequence[Message], Sequence[Message]]:
    """Return the messages that can only be a prompt, and those that contain the answers; none in a prompt alone."""
    if "messages" in row:
        history, answers = row["messages"][:1], row["messages"][1:]
    else:
        history, answers = row["prompt"], row.get("completion") or []
    last = answers[-1] if answers else {}
    if ("messages" in row or answers) and last.get("role") != "assistant":
        raise ActshiftError(f"The messages of row {number} must end with an assistant's turn after another turn.")
    if not answers and history[-1].get("role") == "assistant":
        raise ActshiftError(
            f"The prompt of row {number} must end with a turn that the model answers, such as a user's."
        )
    return history, answers
