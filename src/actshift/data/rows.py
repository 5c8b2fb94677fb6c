"""Rows, from a file or the hub, each of them checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.data.readers import is_file_name, read_file
from actshift.errors import ActshiftError, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset


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


def load_rows(
    source: str, split: str | None = None, limit: int | None = None, kinds: Sequence[Columns] = LANGUAGE
) -> Dataset:
    """Return the rows of `source`, each checked, with the columns prompt + completion, messages, or text.

    `source` is a .jsonl, .json, .csv or .parquet file (all but the last also as .gz) or the id of a dataset on
    the hub, of which `split` ("train" by default) is read. Only the first `limit` rows are kept if it is given.
    What a CSV file says stays text: a completion `007` or `NA` is neither a number nor a missing value.
    `kinds` asks for other columns, such as `LABELLED`; the first that the rows have counts. Beside a prompt or
    messages, `answer` and `choices` are kept where every row has them: what a scorer goes by.

    Raises:
        ActshiftError: no such file or dataset, one that cannot be read or has no rows, other columns, or a row
            without its text; the message names the source and the row, counted from 1.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "rows.jsonl")
        >>> _ = path.write_text(json.dumps({"prompt": "2 + 2 =", "completion": " 4"}))
        >>> load_rows(str(path))[0]
        {'prompt': '2 + 2 =', 'completion': ' 4'}
    """
    require("datasets", "train")
    rows: Any = read_file(Path(source)) if is_file_name(source) else _from_hub(source, split or "train")
    if limit is not None:
        rows = rows[:limit] if isinstance(rows, list) else rows.select(range(min(limit, len(rows))))
    return checked_rows(rows, source, kinds)


def checked_rows(rows: Any, source: str, kinds: Sequence[Columns] = LANGUAGE) -> Dataset:
    """Return rows that came from `source`, a list or a dataset, as `load_rows` does, and raise what it raises."""
    columns = _columns(source, rows, kinds)
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if wrong := fault(row, column):
                raise ActshiftError(f"Row {number} of {source} {wrong}.")
    columns += kept_beside(rows, columns)
    values = {column: [plain(column, row[column]) for row in rows] for column in columns}
    return require("datasets", "train").Dataset.from_dict(values)


def _columns(source: str, rows: Any, kinds: Sequence[Columns]) -> Columns:
    if not len(rows):
        raise ActshiftError(f"{source} holds no rows.")
    found = list(dict.fromkeys(key for row in rows for key in row)) if isinstance(rows, list) else rows.column_names
    if columns := columns_of(found, kinds):
        return columns
    wanted = ", or ".join(_listing(columns) for columns in kinds)
    raise ActshiftError(f"{source} has the columns {', '.join(map(str, found)) or '(none)'}; a row needs {wanted}.")


def _listing(columns: Columns) -> str:
    *first, last = columns
    return f"{', '.join(first)} and {last}" if first else last


def _from_hub(source: str, split: str) -> Dataset:
    datasets = require("datasets", "train")
    try:
        return datasets.load_dataset(source, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ActshiftError(
            f"There is no data at {source!r}: no such file, and the hub gave no split {split!r} of such a dataset "
            f"({first_line(error).rstrip('.')})."
        ) from error
