"""Prompts of generate, chat and eval: read them from a file, and render them with a chat template as training did."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """A text or messages, and what the chat template reads along with them: `tools` and `chat_template_kwargs`."""

    content: str | Messages
    template: dict[str, Any] = field(default_factory=dict[str, Any])


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

    def render_all(self, prompts: Sequence[Prompt], tokenizer: Any) -> list[str]:
        """Return the texts of prompts for generation, exactly as in training."""
        from actshift.data import check_template

        if self.rendered:
            check_template(tokenizer)
        numbered = enumerate(prompts, start=1)
        return [self.render(each.content, tokenizer, f"Prompt {number}", each.template) for number, each in numbered]

    def render(
        self, prompt: str | Messages, tokenizer: Any, place: str, template: Mapping[str, Any] | None = None
    ) -> str:
        """Return the text of one prompt; errors call it `place`. `template` are the tools and kwargs of its row."""
        from actshift.data import render_prompt
        from actshift.data.chat import check_characters

        if not self.rendered:
            if not isinstance(prompt, str):
                raise ActshiftError(f"{place} is a list of messages, which needs the chat template. Add --chat.")
            check_characters(prompt, place)
            return prompt
        options = {"chat_template_kwargs": self.template_kwargs, **(template or {})}
        return render_prompt(self.messages(prompt, place), tokenizer, place, **options)

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


def read_prompts(prompt: str | None, file: Path | None) -> list[Prompt]:
    """Return the text of --prompt, or the prompts in the file of --prompts.

    Rows of a file have "prompt" or "messages", and what else the chat template reads. Other files, such as a pipe, have
    one such JSON object or one text per line. Warns of columns that prompts do not use.

    Raises:
        ActshiftError: both or neither are given, or the file cannot be read or contains something else.
    """
    from actshift.data.readers import FORMATS, file_format, read_file

    if (prompt is None) == (file is None):
        raise ActshiftError("Give either --prompt with a text or --prompts with a file.")
    if file is None:
        return [Prompt(prompt or "")]
    rows = read_file(file) if file_format(file) in FORMATS else _read_lines(file)
    unused: dict[str, None] = {}
    prompts = [_prompt_of(row, f"Row {number} of {file}", unused) for number, row in enumerate(rows, start=1)]
    if not prompts:
        raise ActshiftError(f"{file} holds no prompts. Write one per line.")
    if unused:
        warnings.warn(f"Prompts do not use these columns of {file}: {', '.join(unused)}.", stacklevel=2)
    return prompts


def _read_lines(file: Path) -> Sequence[Any]:
    """Return the lines of a file that are not blank, or their values if the first one is a JSON object of a row."""
    from actshift.data.json_text import parse_json

    try:
        # Not splitlines: it also splits at characters such as U+2028, which a text may contain.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ActshiftError(f"{file} is not a text file in UTF-8.") from error
    lines = [line for line in lines if line.strip()]
    rows: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            if number > 1:
                raise ActshiftError(f"Row {number} of {file} is no JSON object, unlike the first: {error}.") from error
        if number == 1 and not (rows and isinstance(rows[0], dict) and {"prompt", "messages"} & rows[0].keys()):
            return lines
    return rows


def _prompt_of(row: Any, place: str, unused: dict[str, None]) -> Prompt:
    """Return the prompt of a row or a line, and add the names of columns that it does not use to `unused`."""
    from actshift.data.layouts import TEMPLATE, RowProblem, find_layout
    from actshift.data.values import check_values, normalize

    if isinstance(row, str):
        return Prompt(row)
    if not isinstance(row, Mapping) or not {"prompt", "messages"} & row.keys():
        raise ActshiftError(f'{place} has no "prompt", which is a text or a list of messages.')
    columns = cast("Mapping[str, Any]", row)
    renames = None if "prompt" in columns else {"prompt": "messages"}
    layout = find_layout([*columns], [("prompt",)], place, renames)
    try:
        values = layout.convert(columns)
        check_values(values, layout.kind)
    except RowProblem as problem:
        raise ActshiftError(f"{place} {problem}.") from None
    unused.update(dict.fromkeys(layout.unused))
    template = {name: normalize(name, values[name]) for name in TEMPLATE if values.get(name)}
    return Prompt(normalize("prompt", values["prompt"]), template)
