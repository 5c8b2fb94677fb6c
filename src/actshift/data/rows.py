"""Load rows from a file or the hub, and check every row before a program uses any of them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from actshift.errors import ActshiftError, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]  # values by column name
Columns = tuple[str, ...]  # the columns that one kind of row needs

LANGUAGE: tuple[Columns, ...] = (("prompt", "completion"), ("messages",), ("text",))
"""Rows for language modelling. If a file fits several of these, the first one is used."""
LABELLED: tuple[Columns, ...] = (("text", "label"), ("tokens", "tags"), ("text", "text_pair"))
"""Rows for an encoder: a text or a pair of texts with a class, words with one tag each, or two related texts."""
PREFERENCES: tuple[Columns, ...] = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""Rows with a chosen and a rejected completion, as text after a prompt or as two whole chats."""
PROMPTS: tuple[Columns, ...] = (("prompt",),)
"""Rows with a prompt that the model completes for a reward."""

_GOLD = ("answer", "choices")
OPTIONAL: dict[str, Columns] = {"prompt": _GOLD, "messages": _GOLD, "label": ("text_pair",)}
"""Columns to keep along with a column, if every row has them: inputs of a scorer, and the second text of a pair."""
TEMPLATE: Columns = ("tools", "chat_template_kwargs")
"""Columns that a chat template reads along with messages. They are kept if any row has them; the others have None."""
_CHATS = ("messages", "prompt", "completion", "chosen", "rejected")  # columns that may hold chat messages
_RESERVED = ("tokenize", "add_generation_prompt", "continue_final_message", "messages", "conversation", "tools")


def load_rows(
    source: str, split: str | None = None, limit: int | None = None, kinds: Sequence[Columns] = LANGUAGE
) -> Dataset:
    """Return the rows of a file or of a dataset on the hub, after checking each of them.

    Values of a CSV file stay text: the completion `007` is not a number, and `NA` is not a missing value.

    Args:
        source: a .jsonl, .json or .csv file (also as .gz), a .parquet file, or the id of a dataset.
        split: the split of the dataset on the hub, "train" by default. A file has no splits.
        limit: the number of rows to keep from the start, or None for all.
        kinds: the allowed sets of columns. The result has the first set that the rows have, and the columns of
            `OPTIONAL` that every row has.

    Raises:
        ActshiftError: the source does not exist, cannot be read or has no rows, the columns fit none of `kinds`, or a
            value is missing or has the wrong type. The message names the row, counted from 1.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "rows.jsonl")
    >>> _ = path.write_text(json.dumps({"prompt": "2 + 2 =", "completion": " 4"}))
    >>> load_rows(str(path))[0]
    {'prompt': '2 + 2 =', 'completion': ' 4'}
    """
    require("datasets", "train")
    path = Path(source)
    is_file = path.is_file() or _format(path) in _READERS
    rows: Any = read_file(path) if is_file else _from_hub(source, split or "train")
    if limit is not None:
        rows = rows[:limit] if isinstance(rows, list) else rows.select(range(min(limit, len(rows))))
    return check_rows(rows, source, kinds)


def check_rows(rows: Any, source: str, kinds: Sequence[Columns] = LANGUAGE) -> Dataset:
    """Return a list or dataset of rows with the columns that `load_rows` keeps; errors as there name the `source`."""
    columns = _required_columns(source, rows, kinds)
    for number, row in enumerate(rows, start=1):
        for column in (*columns, *TEMPLATE):
            if problem := _find_problem(row, column):
                raise ActshiftError(f"Row {number} of {source} {problem}.")
    optional = dict.fromkeys(name for column in columns for name in OPTIONAL.get(column, ()) if name not in columns)
    columns += tuple(name for name in optional if all(_is_usable(name, row.get(name)) for row in rows))
    nested = tuple(name for name in columns if name in _CHATS and not isinstance(rows[0][name], str))
    if nested:
        template = tuple(name for name in TEMPLATE if any(row.get(name) is not None for row in rows))
        nested, columns = nested + template, columns + template
    from actshift.data.table import to_dataset

    values = ({column: _normalize(column, row.get(column)) for column in columns} for row in rows)
    return to_dataset(values, columns, nested)


def read_file(path: Path) -> list[Row]:
    """Return the rows of a .jsonl, .json, .csv or .parquet file. All formats but Parquet may be compressed as .gz.

    Raises:
        ActshiftError: the file does not exist, has another format, or cannot be read.
    """
    if not path.is_file():
        raise ActshiftError(f"There is no file {path}.")
    if (reader := _READERS.get(_format(path))) is None:
        raise ActshiftError(f"{path} has an unknown format; use one of {', '.join(_READERS)}.")
    try:
        return reader(path)
    except ActshiftError:
        raise
    except (OSError, EOFError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, not JSON, not Parquet
        raise ActshiftError(f"{path} cannot be read: {first_line(error).rstrip('.')}.") from error


def find_columns(names: Sequence[str], kinds: Sequence[Columns]) -> Columns | None:
    """Return the first set of columns in `kinds` whose names are all in `names`, or None.

    >>> find_columns(["id", "text", "label"], LABELLED)
    ('text', 'label')
    """
    return next((columns for columns in kinds if set(columns) <= set(names)), None)


def _format(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _open(path: Path) -> TextIO:
    opener = cast(Callable[..., TextIO], gzip.open if path.name.lower().endswith(".gz") else open)
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _read_json_lines(path: Path) -> list[Row]:
    with _open(path) as lines:
        return [_parse_object(line, f"Line {number} of {path}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse_object(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ActshiftError(f"{place} is not valid JSON: {first_line(error).rstrip('.')}.") from error
    if not isinstance(row, dict):
        raise ActshiftError(f"{place} is a {type(row).__name__}; it must be an object with columns.")
    return row


def _read_json(path: Path) -> list[Row]:
    with _open(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):  # many .json files have one object per line
        return _read_json_lines(path)
    rows = json.loads(text)
    if not all(isinstance(row, dict) for row in rows):
        raise ActshiftError(f"{path} is a JSON list with items that are not objects; each item must have columns.")
    return rows


def _read_csv(path: Path) -> list[Row]:
    with _open(path) as file:
        return list(csv.DictReader(file, strict=True))


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": lambda path: require("pyarrow.parquet", "train").read_table(path).to_pylist(),
}


def _from_hub(source: str, split: str) -> Dataset:
    datasets = require("datasets", "train")
    try:
        return datasets.load_dataset(source, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ActshiftError(
            f"There is no data at {source!r}: it is not a file, and no split {split!r} of a dataset with this id "
            f"could be loaded from the hub ({first_line(error).rstrip('.')})."
        ) from error


def _required_columns(source: str, rows: Any, kinds: Sequence[Columns]) -> Columns:
    if not len(rows):
        raise ActshiftError(f"{source} holds no rows.")
    names = list(dict.fromkeys(name for row in rows for name in row)) if isinstance(rows, list) else rows.column_names
    if columns := find_columns(names, kinds):
        return columns
    allowed = ", or ".join(" and ".join(", ".join(columns).rsplit(", ", maxsplit=1)) for columns in kinds)
    raise ActshiftError(f"{source} has the columns {', '.join(map(str, names)) or '(none)'}; a row needs {allowed}.")


def _find_problem(row: Row, column: str) -> str | None:
    """Return the problem with a value, in words that follow "Row 3", or None if it is valid."""
    value = row.get(column)
    if column in TEMPLATE:
        return _find_template_problem(column, value)
    if value is None:
        return f"has no {column}"
    if column == "messages" or (column in ("chosen", "rejected") and (isinstance(value, list) or "prompt" not in row)):
        return _find_messages_problem(value, column)
    if column == "tokens":
        return None if value and _is_list_of_texts(value) else "has tokens that are not a list of words"
    if column == "tags":
        tokens = row.get("tokens")
        is_valid = isinstance(value, list) and isinstance(tokens, list) and len(value) == len(tokens)
        return None if is_valid else "has tags that are not a list with one for each of its tokens"
    if column == "label":
        is_valid = isinstance(value, str | int) and str(value).strip()
        return None if is_valid else f"has the label {value!r}, which is not a class name"
    if not isinstance(value, str):
        return f"has a {column} of type {type(value).__name__}; it must be text: {value!r:.60}"
    return None if value.strip() else f"has an empty {column}"


def _find_messages_problem(messages: Any, column: str) -> str | None:
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        return f"has {column} that are not a list of turns with role and content"
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return f"has {column} that do not end with an assistant's turn after another turn"
    if not all(isinstance(turn["content"], str) for turn in turns) or not turns[-1]["content"].strip():
        return f"has {column} with a turn without text, or with an empty last turn"
    return None


def _find_template_problem(column: str, value: Any) -> str | None:
    if column == "chat_template_kwargs":
        if not isinstance(value, dict | None):
            return f"has chat_template_kwargs of type {type(value).__name__}; they must be an object"
        reserved = next((name for name in _RESERVED if name in (value or {})), None)
        return reserved and f"has chat_template_kwargs with {reserved}, which cannot be set; leave it out"
    value = _normalize(column, value)
    if value is None or (isinstance(value, list) and all(isinstance(tool, dict) for tool in value)):
        return None
    return "has tools that are not a list of objects, or the JSON text of such a list"


def _is_usable(column: str, value: Any) -> bool:
    if column == "choices":
        return _is_list_of_texts(value)
    return isinstance(value, str | int | float) if column == "answer" else isinstance(value, str)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _normalize(column: str, value: Any) -> Any:
    """Return a value in the type of its column. Class names are text, even if a file numbers the classes."""
    if column in ("label", "answer"):
        return str(value)
    if column == "tools" and isinstance(value, str):  # JSON text, which TRL advises for files that Arrow reads
        with suppress(ValueError):
            return json.loads(value) if value.strip() else None
    return [str(tag) for tag in value] if column == "tags" else value
