"""What a row may consist of, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Columns = tuple[str, ...]

LANGUAGE: tuple[Columns, ...] = (("prompt", "completion"), ("messages",), ("text",))
"""Rows that a language model learns to continue; where a file has several of these, the first one counts."""
LABELLED: tuple[Columns, ...] = (("text", "label"), ("tokens", "tags"), ("text", "text_pair"))
"""Rows for an encoder: a text (or two) with its class, words with a tag each, and two texts that belong together."""
PREFERENCES: tuple[Columns, ...] = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""Rows of a preference: of two completions, the one that was chosen; or two whole chats, as messages."""
PROMPTS: tuple[Columns, ...] = (("prompt",),)
"""Rows that a model completes by itself, and is rewarded for."""

BESIDE: dict[str, Columns] = {
    "prompt": ("answer", "choices"),
    "messages": ("answer", "choices"),
    "label": ("text_pair",),
}
"""What is kept beside a column, where every row has it: what a scorer goes by, and the second text of a pair."""


def columns_of(found: Sequence[str], kinds: Sequence[Columns]) -> Columns | None:
    """Return the first of `kinds` that is among the columns `found`.

    >>> columns_of(["id", "text", "label"], LABELLED)
    ('text', 'label')
    """
    return next((columns for columns in kinds if set(columns) <= set(found)), None)


def fault(row: Mapping[str, Any], column: str) -> str | None:
    """Return what is wrong with a column of a row, in words that follow "Row 3", or None."""
    value = row.get(column)
    if value is None:
        return f"has no {column}"
    if column == "messages" or (column in ("chosen", "rejected") and (isinstance(value, list) or "prompt" not in row)):
        return _messages_fault(value, column)
    if column == "tokens":
        return None if _texts(value) and value else "has tokens that are not a list of words"
    if column == "tags":
        same = isinstance(value, list) and isinstance(row.get("tokens"), list) and len(value) == len(row["tokens"])
        return None if same else "has tags that are not a list of one for each of its tokens"
    if column == "label":
        return (
            None if isinstance(value, str | int) and str(value).strip() else f"has a label that is no name: {value!r}"
        )
    if not isinstance(value, str):
        return f"has a {column} of type {type(value).__name__} where text belongs: {value!r:.60}"
    return None if value.strip() else f"has an empty {column}"


def kept_beside(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Columns:
    """Return the columns of `BESIDE` that every row has in a form that can be used."""
    wanted = dict.fromkeys(name for column in columns for name in BESIDE.get(column, ()) if name not in columns)
    return tuple(name for name in wanted if all(_usable(name, row.get(name)) for row in rows))


def plain(column: str, value: Any) -> Any:
    """Return a value in the type that its column has for all rows: a class is a name, also where a file counts them."""
    if column in ("label", "answer"):
        return str(value)
    return [str(one) for one in value] if column == "tags" else value


def _usable(column: str, value: Any) -> bool:
    if column == "choices":
        return _texts(value)
    return isinstance(value, str | int | float) if column == "answer" else isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _messages_fault(messages: Any, column: str) -> str | None:
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        return f"has {column} that are not a list of turns with role and content"
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return f"has {column} that do not end with an assistant's turn after another's"
    if not all(isinstance(turn["content"], str) for turn in turns) or not turns[-1]["content"].strip():
        return f"has {column} without text, or with an empty last turn"
    return None
