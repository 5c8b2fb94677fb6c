"""The layouts that rows come in: find the layout of a file by its columns, and convert its rows to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from actshift.data.json_text import parse_json
from actshift.data.readers import Row
from actshift.errors import ActshiftError, did_you_mean, printable, show

Columns = tuple[str, ...]  # the columns that one kind of row needs

ALPACA: Columns = ("instruction", "input", "output")
TEMPLATE: Columns = ("tools", "chat_template_kwargs")
"""Columns that a chat template reads along with messages. They are kept if any row has them; the others have None."""
CHATS: Columns = ("messages", "prompt", "completion", "chosen", "rejected")  # columns that may be chat messages
GOLD: Columns = ("answer", "choices")
OPTIONAL: dict[str, Columns] = {"prompt": GOLD, "messages": GOLD, "label": ("text_pair",)}
"""Columns to keep along with a column, if every row has them: inputs of a scorer, and the second text of a pair."""

_CONVERTED: dict[Columns, tuple[Columns, ...]] = {  # the columns of our kinds in other layouts
    ("prompt", "completion"): (("instruction", "output"),),
    ("messages",): (("conversations",),),
    ("prompt", "chosen", "rejected"): (("instruction", "chosen", "rejected"), ("conversations", "chosen", "rejected")),
}
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_MEANING = ("system", "history", "functions", *TEMPLATE, *_MEDIA)
"""Columns that change what a row means to a language model: a row is refused if its layout does not use them."""
_SHOWN = 20  # columns in a message
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "assistant": "assistant", "function_call": "assistant", "system": "system",
    "developer": "developer", "tool": "tool", "observation": "tool", "function": "function",
    "function_response": "tool",
}  # fmt: skip


class RowProblem(ValueError):
    """A problem with a row, in words that follow "Row 3"."""


@dataclass(frozen=True)
class Layout:
    """A layout of rows: the columns `found` that `convert` reads, and the columns `kind` that it returns."""

    kind: Columns
    found: Columns
    renamed: Mapping[str, str]  # the columns of the rows, by the names that they get
    unused: Columns

    def convert(self, row: Row) -> dict[str, Any]:
        """Return a row with the columns of `kind` and the optional ones, or raise RowProblem."""
        values = {name: value for name, value in row.items() if name not in self.renamed.values()}
        values |= {name: row.get(source) for name, source in self.renamed.items()}
        for name in ("conversations", "messages", *CHATS):
            if isinstance(values.get(name), list | dict):
                values[name] = _chatml(values[name], name)
        if "instruction" in self.found:
            values["prompt"] = _alpaca_prompt(values)
            if "output" in self.found:
                values["completion"] = "\n" + _text(values, "output")
        if "conversations" in self.found:
            values["prompt" if "chosen" in self.found else "messages"] = values.pop("conversations", None)
        if self.kind in _LANGUAGE_KINDS:
            _lift(values, self.kind)
            _check_meaning(values, self.kind)
        return values

    def column(self, name: str) -> str | None:
        """Return the column of the rows that is read as `name`, or None if it is read under another name."""
        return self.renamed.get(name, None if name in self.renamed.values() else name)

    def description(self, dropped: Sequence[str] = ()) -> str:
        """Return the layout in a few words. `dropped` are optional columns that some rows lack.

        >>> find_layout(["instruction", "output", "id"], [("prompt", "completion")], "rows.json").description()
        'instruction and output (Alpaca); not used: id'
        """
        columns = {name: self.renamed.get(name, name) for name in self.found}
        names = [name if name == column else f"{column} as {name}" for name, column in columns.items()]
        origin = {"instruction": " (Alpaca)", "conversations": " (ShareGPT)"}.get(self.found[0], "")
        unused = _list((*self.unused, *dropped))
        return join(names) + origin + (f"; not used: {unused}" if unused else "")


_LANGUAGE_KINDS = (
    ("prompt", "completion"), ("messages",), ("prompt",), ("prompt", "chosen", "rejected"), ("chosen", "rejected"),
)  # fmt: skip


def find_layout(
    names: Sequence[str], kinds: Sequence[Columns], source: str, renames: Mapping[str, str] | None = None
) -> Layout:
    """Return the layout of rows with these columns.

    Args:
        names: the columns of the rows.
        kinds: the allowed kinds of rows. `text` alone is used only if nothing else fits.
        renames: the columns to read under other names, as {name: column}. If several layouts fit, they choose one.

    Raises:
        ActshiftError: no layout fits, or several do.
    """
    renames = renames or {}
    for name, column in renames.items():
        if column not in names:
            hint = did_you_mean(column, names)
            raise ActshiftError(f"{source} has no column {show(column)}{hint} for {name}; it has {_list(names)}.")
    available = {*names} - {*renames.values()} | {*renames}
    fitting = [(kind, found) for kind in kinds for found in (kind, *_CONVERTED.get(kind, ())) if available >= {*found}]
    chosen = [(kind, found) for kind, found in fitting if {*found} & {*renames}] or fitting
    chosen = [pair for pair in chosen if not any({*pair[1]} < {*found} for _, found in chosen)]
    chosen = [pair for pair in chosen if pair[1] != ("text",)] or chosen
    chosen = chosen[:1] if chosen and "label" in chosen[0][1] else chosen  # with text_pair too
    if not chosen:
        needed = ", or ".join(map(join, kinds))
        hint = " Name other columns by --map, as in --map prompt=question." if names else ""
        raise ActshiftError(f"{source} has the columns {_list(names) or '(none)'}; a row needs {needed}.{hint}")
    if len(chosen) > 1:
        several = ", and also ".join(join(found) for _, found in chosen)
        fix = f"choose by --map, as in --map {chosen[0][1][-1]}={chosen[0][1][-1]}, or remove columns"
        raise ActshiftError(f"{source} has {several}; {fix}.")
    kind, found = chosen[0]
    used = {*kind, *found, *TEMPLATE, "system", *(ALPACA if "instruction" in found else ())}
    used |= {name for column in kind for name in OPTIONAL.get(column, ())}
    return Layout(kind, found, dict(renames), tuple(name for name in names if name in available - used))


def join(names: Sequence[str]) -> str:
    """Return names as in a sentence.

    >>> join(["prompt", "chosen", "rejected"])
    'prompt, chosen and rejected'
    """
    return " and ".join(", ".join(names).rsplit(", ", maxsplit=1))


def _list(names: Sequence[str]) -> str:
    """Return names from a file for a message: the first ones, and no more than the start of each."""
    shown = [printable(name if len(name) <= 60 else f"{name[:57]}...") for name in names[:_SHOWN]]
    return ", ".join([*shown, *([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])])


def alpaca_prompt(instruction: str, context: str) -> str:
    """Return the prompt of an Alpaca row: the second half of the template of Taori et al., without its introduction.

    >>> alpaca_prompt("Add.", "1 2")
    '### Instruction:\\nAdd.\\n\\n### Input:\\n1 2\\n\\n### Response:'
    """
    middle = f"### Input:\n{context.strip()}\n\n" if context.strip() else ""
    return f"### Instruction:\n{instruction.strip()}\n\n{middle}### Response:"


def _alpaca_prompt(row: Row) -> str:
    context = row.get("input")
    if not isinstance(context, str | None):
        raise RowProblem(f"has an input of type {type(context).__name__}; it must be text: {show(context):.60}")
    return alpaca_prompt(_text(row, "instruction"), context or "")


def _text(row: Row, name: str) -> str:
    if problem := find_text_problem(row.get(name), name):
        raise RowProblem(problem)
    return cast(str, row[name])


def find_text_problem(value: Any, name: str) -> str | None:
    """Return the problem with a value that must be a text, in words that follow "Row 3", or None."""
    if value is None:
        return f"has no {name}"
    if not isinstance(value, str):
        return f"has a {name} of type {type(value).__name__}; it must be text: {show(value):.60}"
    return None if value.strip() else f"has an empty {name}"


def _chatml(value: Any, name: str) -> Any:
    """Return messages with the keys role and content. ShareGPT has from and value instead; see TRL's converter."""
    turns = cast("list[Any]", [value] if isinstance(value, dict) else value)
    return [_message(turn, name) if isinstance(turn, dict) and "from" in turn else turn for turn in turns]


def _message(turn: dict[str, Any], name: str) -> dict[str, Any]:
    role, value = turn["from"], turn.get("value")
    if "role" in turn or "content" in turn:
        raise RowProblem(f"has {name} with a turn that has both from and role, or value and content")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowProblem(f"has {name} from {show(role):.60}; use one of {', '.join(_ROLES)}")
    rest = {key: item for key, item in turn.items() if key not in ("from", "value")}
    if role == "function_call":
        try:
            call = parse_json(value) if isinstance(value, str) else value
        except ValueError:
            call = None
        if not isinstance(call, dict) or "name" not in call:
            raise RowProblem(f"has {name} with a function_call that is not the JSON text of a name and arguments")
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}], **rest}
    return {"role": _ROLES[role], "content": value, **rest}


def _lift(row: dict[str, Any], kind: Columns) -> None:
    """Write each part of a chat as messages in place, and a system text as their first."""
    if "completion" in kind and isinstance(row.get("completion"), list) and isinstance(row.get("prompt"), str):
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    prompt = row.get("prompt")
    for name in ("completion", "chosen", "rejected"):
        if name in kind and isinstance(prompt, list) and isinstance(row.get(name), str):
            row[name] = [{"role": "assistant", "content": row[name]}]
    chat = next((name for name in ("messages", "prompt", "chosen") if isinstance(row.get(name), list)), None)
    if row.get("system") and chat in kind and isinstance(row["system"], str):
        first = row[chat][0] if row[chat] else None
        if isinstance(first, dict) and first.get("role") == "system":
            raise RowProblem("has a column system, and also messages that begin with a system turn")
        for name in ("chosen", "rejected") if chat == "chosen" else (chat,):
            if isinstance(row.get(name), list):
                row[name] = [{"role": "system", "content": row["system"]}, *row[name]]
        row["system"] = None
    if "chosen" in kind and isinstance(row.get("chosen"), list):
        prompt = _preference_prompt(row, prompt)
        row.update({name: [*prompt, *row[name]] for name in ("chosen", "rejected") if isinstance(row.get(name), list)})
        row.pop("prompt", None)


def _preference_prompt(row: Row, prompt: Any) -> list[Any]:
    """Return the messages to put before both chats: the prompt, unless the chats contain it."""
    if isinstance(prompt, list):
        return cast("list[Any]", row["prompt"])
    first = cast("list[Any]", row["chosen"])[:1]
    if prompt is None or not isinstance(prompt, str):
        return []
    if first and isinstance(first[0], dict) and first[0].get("role") == "assistant":
        return [{"role": "user", "content": prompt}]
    users = [turn for turn in row["chosen"] if isinstance(turn, dict) and turn.get("role") == "user"]
    if any(turn.get("content") == prompt for turn in users):
        return []
    raise RowProblem("has a prompt that is not a user's turn in its chosen chat")


def _check_meaning(row: Row, kind: Columns) -> None:
    """Raise RowProblem for a value that changes the meaning of the row, but that its layout cannot use."""
    has_messages = any(isinstance(row.get(name), list) for name in kind)
    for name in _MEANING:
        value = row.get(name)
        if value and not (has_messages and name in TEMPLATE):
            fix = "use rows of messages" if name not in _MEDIA else "only text is supported"
            raise RowProblem(f"has {name}, which {join(kind)} cannot use; {fix}, or remove the column")
    if "completion" in kind and isinstance(row.get("label"), bool):
        raise RowProblem("has a label that is true or false (KTO); keep the rows with true, without the label")
