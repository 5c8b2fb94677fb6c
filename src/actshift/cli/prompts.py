"""Prompts of generate, chat and eval: read them from a file, and render them with a chat template as training did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class ChatMode:
    """The conversion of prompts to texts: unchanged, or rendered by the chat template, with a system prompt.

    `rendered` is None if neither the user nor a record of training decides; it then counts as False.
    """

    rendered: bool | None
    system: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])

    def or_else(self, rendered: bool) -> ChatMode:
        """Return this mode, with `rendered` if it is undecided."""
        return replace(self, rendered=rendered) if self.rendered is None else self

    def messages(self, prompt: str | Messages, place: str) -> Messages:
        """Return a prompt as messages, with the system prompt first; errors call it `place`."""
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if self.system is None:
            return turns
        if turns and turns[0].get("role") in ("system", "developer"):
            raise ActshiftError(f"{place} has a system prompt of its own. Leave out --system.")
        return [{"role": "system", "content": self.system}, *turns]

    def render_all(self, prompts: Sequence[str | Messages], tokenizer: Any) -> list[str]:
        """Return the texts of prompts for generation, exactly as in training."""
        from actshift.data import check_template

        if self.rendered:
            check_template(tokenizer)
        return [self.render(prompt, tokenizer, f"Prompt {number}") for number, prompt in enumerate(prompts, start=1)]

    def render(self, prompt: str | Messages, tokenizer: Any, place: str) -> str:
        """Return the text of one prompt; errors call it `place`."""
        from actshift.data import render_prompt
        from actshift.data.chat import check_characters

        if not self.rendered:
            if not isinstance(prompt, str):
                raise ActshiftError(f"{place} is a list of messages, which needs the chat template. Add --chat.")
            check_characters(prompt, place)
            return prompt
        kwargs = self.template_kwargs
        return render_prompt(self.messages(prompt, place), tokenizer, place, chat_template_kwargs=kwargs)

    def chats(self, rows: Dataset) -> Dataset:
        """Return rows to evaluate as messages with the system prompt, if this mode renders; else as they are."""
        from actshift.data import is_chat
        from actshift.data.arrow import to_dataset
        from actshift.data.layouts import TEMPLATE
        from actshift.data.values import LISTS

        if not self.rendered:
            if is_chat(rows):
                raise ActshiftError("The rows are messages, which need the chat template. Leave out --no-chat.")
            return rows
        if "prompt" not in rows.column_names and "messages" not in rows.column_names:
            raise ActshiftError(
                "The chat template renders rows of prompt and completion, or of messages. Add --no-chat."
            )
        converted: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=1):
            values: dict[str, Any] = dict(row)
            turns = values.pop("messages", None)
            if turns is None:
                answer = values.pop("completion", None) or []
                answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
                turns = values.pop("prompt")
                turns = [*([{"role": "user", "content": turns}] if isinstance(turns, str) else turns), *answer]
            kwargs = values.get("chat_template_kwargs") or self.template_kwargs or None
            messages = self.messages(turns, f"Row {number}")
            converted.append({**values, "messages": messages, "chat_template_kwargs": kwargs})
        columns = list(converted[0])
        nested, lists = ([name for name in columns if name in names] for names in (("messages", *TEMPLATE), LISTS))
        return to_dataset(converted, columns, nested, lists)


def choose_chat(chat: bool | None, system: str | None, sources: Sequence[str | None]) -> ChatMode:
    """Return how to render prompts: by --chat and --system, else as in the training of `sources` (adapters, a model).

    Raises:
        ActshiftError: --system is given without the chat template, or the sources were trained in different ways.
    """
    from actshift.training.result import recorded_chat

    records = {source: record for source in sources if source and (record := recorded_chat(source))}
    if system is not None and chat is False:
        raise ActshiftError("--system is a turn of a chat. Leave out --no-chat.")
    if chat is None and system is not None:
        chat = True
    if chat is None:
        sides = {record.rendered: source for source, record in records.items()}
        if len(sides) == 2:
            problem = f"{sides[True]} was trained on rendered chats, and {sides[False]} on plain texts"
            raise ActshiftError(f"{problem}. Choose one with --chat or --no-chat.")
        chat = next(iter(sides), None)
    kwargs = [record.template_kwargs for record in records.values() if record.rendered]
    return ChatMode(chat, system, kwargs[0] if kwargs and all(each == kwargs[0] for each in kwargs) else {})


def read_prompts(prompt: str | None, file: Path | None) -> list[str | Messages]:
    """Return the text of --prompt, or the texts or lists of messages in the file of --prompts.

    Raises:
        ActshiftError: both or neither are given, or the file cannot be read or contains something else.
    """
    if (prompt is None) == (file is None):
        raise ActshiftError("Give either --prompt with a text or --prompts with a file.")
    if file is None:
        return [prompt or ""]
    try:
        # Not splitlines: it also splits at characters such as U+2028, which a text may contain.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ActshiftError(f"{file} is not a text file in UTF-8.") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ActshiftError(f"{file} holds no prompts. Write one per line.")
    if file.suffix != ".jsonl":
        return [line for _, line in numbered]
    return [_prompt_in(line, f"Row {number} of {file}") for number, line in numbered]


def _prompt_in(line: str, place: str) -> str | Messages:
    from actshift.data.json_text import parse_json

    try:
        row = parse_json(line)
    except ValueError as error:
        raise ActshiftError(f'{place} is not a JSON object with a "prompt": {error}.') from error
    value: Any = cast("dict[str, Any]", row).get("prompt", row.get("messages")) if isinstance(row, dict) else None
    is_chat = isinstance(value, list) and value and all(isinstance(turn, dict) and "role" in turn for turn in value)
    if not isinstance(value, str) and not is_chat:
        raise ActshiftError(f'{place} is not a JSON object with a "prompt" that is a text or a list of messages.')
    return value
