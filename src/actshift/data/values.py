"""Check the values of a row in our layouts, and bring them into the form in which they are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actshift.data.json_text import parse_json
from actshift.data.layouts import CHATS, TEMPLATE, Columns, RowProblem, find_text_problem
from actshift.data.readers import Row
from actshift.errors import find_surrogate, is_number, show

LISTS = ("tokens", "tags", "choices")  # columns of lists of texts
_DEPTH = 100  # of lists and objects in messages
_RESERVED = ("tokenize", "add_generation_prompt", "continue_final_message", "messages", "conversation", "tools")


def storable(name: str, value: Any, is_nested: bool) -> Any:
    """Return a value as its column stores it: text, a list of texts, or JSON text. Raise RowProblem if it cannot."""
    if isinstance(value, list | dict) != (is_nested or name in LISTS) and value is not None:
        raise RowProblem(f"has a {name} of type {type(value).__name__}, unlike the first row; give all rows one form")
    text = value if isinstance(value, str) else "".join(value) if name in LISTS and value else ""
    if is_nested and value is not None:
        try:
            if _depth(value) > _DEPTH:
                raise RecursionError
            text = value = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except RecursionError:
            raise RowProblem(f"has {name} whose lists and objects are nested more than {_DEPTH} deep") from None
        except (TypeError, ValueError):
            raise RowProblem(f"has {name} with a value that JSON cannot hold, such as NaN or bytes") from None
    if (index := find_surrogate(text)) is not None:
        half = f"U+{ord(text[index]):04X}"
        raise RowProblem(f"has half of a character ({half}, a lone surrogate) in its {name}; remove it")
    return value


def _depth(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(_depth, items), default=0)


def check_values(row: Row, columns: Columns) -> None:
    """Raise RowProblem unless the values in these columns are valid."""
    for column in columns:
        if problem := _find_problem(row, column):
            raise RowProblem(problem)


def _find_problem(row: Row, column: str) -> str | None:
    """Return the problem with a value, in words that follow "Row 3", or None if it is valid."""
    value = row.get(column)
    if value is None:
        return f"has no {column}"
    if (
        column == "messages"
        or (column in CHATS and isinstance(value, list))
        or (column in ("chosen", "rejected") and "prompt" not in row)
    ):
        return _find_messages_problem(value, column) or _find_template_problem(row)
    if column == "tokens":
        return None if value and _is_list_of_texts(value) else "has tokens that are not a list of words"
    if column == "tags":
        tokens = row.get("tokens")
        is_valid = isinstance(value, list) and isinstance(tokens, list) and len(value) == len(tokens)
        return None if is_valid else "has tags that are not a list with one for each of its tokens"
    if column == "label":
        is_valid = isinstance(value, str | int) and str(value).strip()
        return None if is_valid else f"has the label {show(value):.60}, which is not a class name"
    return find_text_problem(value, column)


def _find_messages_problem(messages: Any, column: str) -> str | None:
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in turns):
        return f"has {column} that are not a list of turns with role and content"
    last = turns[-1]
    if column == "prompt":
        if last["role"] == "assistant":
            return "has a prompt that ends with an assistant's turn; the model answers a user's turn"
    elif last["role"] != "assistant" or (len(turns) < 2 and column != "completion"):
        return f"has {column} that do not end with an assistant's turn after another turn"
    for number, turn in enumerate(turns, start=1):
        if problem := _find_turn_problem(turn, is_last=turn is last):
            return f"has {column} whose turn {number} {problem}"
    return None


def _find_turn_problem(turn: Mapping[str, Any], is_last: bool) -> str | None:
    content, calls = turn.get("content"), turn.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        return "has tool_calls that are not a list of objects"
    if isinstance(content, list):
        part = content[0] if len(content) == 1 and isinstance(content[0], dict) else {}
        content = part.get("text")
        if not isinstance(content, str) or part.get("type", "text") != "text":
            return "has parts other than one text; join the texts, and leave out images"
    if content is None and not calls:
        return "has no content"
    if not isinstance(content, str | None):
        return f"has a content of type {type(content).__name__}; it must be text"
    if is_last and not (content and content.strip()) and not calls:
        return "is empty"
    if turn.get("function_call") is not None:
        return "has a function_call, which chat templates do not read; write it as tool_calls"
    for key in ("weight", "train", "loss"):
        if key in turn and turn[key] not in (1, None):
            return f"has {key} {show(turn[key]):.20}, which is not supported; remove the turn, or the key"
    return None


def _find_template_problem(row: Row) -> str | None:
    options, tools = (normalize(name, row.get(name)) for name in ("chat_template_kwargs", "tools"))
    if not isinstance(options, dict | None):
        return f"has chat_template_kwargs of type {type(options).__name__}; they must be an object"
    if reserved := next((name for name in _RESERVED if name in (options or {})), None):
        return f"has chat_template_kwargs with {reserved}, which cannot be set; leave it out"
    if tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        return None
    return "has tools that are not a list of objects, or the JSON text of such a list"


def is_usable(column: str, value: Any) -> bool:
    """Return whether a value fits an optional column; True for other columns."""
    if column == "choices":
        return _is_list_of_texts(value)
    if column == "answer":
        return isinstance(value, str | bool) or is_number(value)
    return column != "text_pair" or isinstance(value, str)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def normalize(column: str, value: Any) -> Any:
    """Return a value in the type of its column. Class names are text, even if a file numbers the classes."""
    if value is None:
        return None
    if column in ("label", "answer"):
        return str(value)
    if column == "tags":
        return [str(tag) for tag in value]
    if column in TEMPLATE and isinstance(value, str):  # JSON text, which TRL advises for files that Arrow reads
        try:
            return parse_json(value) if value.strip() else None
        except ValueError:
            return value
    if column in CHATS and isinstance(value, list):
        return [
            {**turn, "content": turn["content"][0]["text"]} if isinstance(turn.get("content"), list) else turn
            for turn in value
        ]
    return value
