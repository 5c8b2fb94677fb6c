"""Read training and evaluation rows, from a file or the hub, and check each of them before anything starts."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from actshift.errors import ActshiftError, first_line
from actshift.extras import require

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]

COLUMNS: tuple[tuple[str, ...], ...] = (("prompt", "completion"), ("messages",), ("text",))
"""What a row may consist of; where a file has several of these, the first one counts."""


def load_rows(source: str, split: str | None = None, limit: int | None = None) -> Dataset:
    """Return the rows of `source`, each checked, with the columns prompt + completion, messages, or text.

    `source` is a .jsonl, .json, .csv or .parquet file (all but the last also as .gz) or the id of a dataset on
    the hub, of which `split` ("train" by default) is read. Only the first `limit` rows are kept if it is given.
    What a CSV file says stays text: a completion `007` or `NA` is neither a number nor a missing value.

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
    datasets = require("datasets", "train")
    rows: Any = _from_file(Path(source)) if _is_file_name(source) else _from_hub(source, split or "train")
    if limit is not None:
        rows = rows[:limit] if isinstance(rows, list) else rows.select(range(min(limit, len(rows))))
    columns = _columns(source, rows)
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if fault := _fault(column, row.get(column)):
                raise ActshiftError(f"Row {number} of {source} {fault}.")
    return datasets.Dataset.from_dict({column: [row[column] for row in rows] for column in columns})


def to_prompt_completion(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return rows of messages as prompt + completion, both text, and other rows as they are.

    The tokenizer's chat template renders all but the last turn, with the opening of an answer, as the prompt, and
    the last turn, the assistant's, as the completion, without the end-of-text token that ends every completion.

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
    return require("datasets", "train").Dataset.from_list(rendered)


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text as a model reads its beginning, with the tokenizer's own start token once.

    A text rendered by a chat template may bring the start token along, and the tokenizer then adds a second.
    """
    start = [tokenizer.bos_token_id] * 2
    encoded = cast("list[list[int]]", tokenizer(list(texts), verbose=False)["input_ids"])
    return [ids[1:] if ids[:2] == start else ids for ids in encoded]


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    before = cast(str, tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    whole = cast(str, tokenizer.apply_chat_template(messages, tokenize=False))
    # A template that opens an answer otherwise than it shows a finished one: what generation will see counts.
    completion = whole[len(before) :] if whole.startswith(before) else messages[-1]["content"]
    if end := cast(str, tokenizer.eos_token):
        completion = completion.rpartition(end)[0] or completion
    return {"prompt": before, "completion": completion}


def _columns(source: str, rows: list[Row] | Dataset) -> tuple[str, ...]:
    if not len(rows):
        raise ActshiftError(f"{source} holds no rows.")
    found = list(dict.fromkeys(key for row in rows for key in row)) if isinstance(rows, list) else rows.column_names
    for columns in COLUMNS:
        if set(columns) <= set(found):
            return columns
    raise ActshiftError(
        f"{source} has the columns {', '.join(map(str, found)) or '(none)'}; "
        "a row needs prompt and completion, or messages, or text."
    )


def _fault(column: str, value: Any) -> str | None:
    if value is None:
        return f"has no {column}"
    if column == "messages":
        return _messages_fault(value)
    if not isinstance(value, str):
        return f"has a {column} of type {type(value).__name__} where text belongs: {value!r:.60}"
    return None if value.strip() else f"has an empty {column}"


def _messages_fault(messages: Any) -> str | None:
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        return "has messages that are not a list of turns with role and content"
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return "has messages that do not end with an assistant's turn after another's"
    if not all(isinstance(turn["content"], str) for turn in turns) or not turns[-1]["content"].strip():
        return "has messages without text, or with an empty last turn"
    return None


def _is_file_name(source: str) -> bool:
    return Path(source).is_file() or _format(Path(source)) in _READERS


def _format(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _from_file(path: Path) -> list[Row]:
    if not path.is_file():
        raise ActshiftError(f"There is no file {path}.")
    if _format(path) not in _READERS:
        raise ActshiftError(f"{path} is not a file that can be read: give one of {', '.join(_READERS)}.")
    try:
        return _READERS[_format(path)](path)
    except ActshiftError:
        raise
    except (OSError, EOFError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, not JSON, not Parquet
        raise ActshiftError(f"{path} cannot be read: {first_line(error).rstrip('.')}.") from error


def _open(path: Path) -> TextIO:
    opener = cast(Callable[..., TextIO], gzip.open if path.name.lower().endswith(".gz") else open)
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _read_json_lines(path: Path) -> list[Row]:
    rows: list[Row] = []
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_object(line, f"Line {number} of {path}"))
    return rows


def _object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ActshiftError(f"{where} is not valid JSON: {first_line(error).rstrip('.')}.") from error
    if not isinstance(row, dict):
        raise ActshiftError(f"{where} is {type(row).__name__} where an object with columns belongs.")
    return row


def _read_json(path: Path) -> list[Row]:
    with _open(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):  # many a .json holds one object a line
        return _read_json_lines(path)
    rows = json.loads(text)
    if not all(isinstance(row, dict) for row in rows):
        raise ActshiftError(f"{path} is a JSON list of other things than objects with columns.")
    return rows


def _read_csv(path: Path) -> list[Row]:
    with _open(path) as file:
        return list(csv.DictReader(file, strict=True))


def _read_parquet(path: Path) -> list[Row]:
    return require("pyarrow.parquet", "train").read_table(path).to_pylist()


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _from_hub(source: str, split: str) -> Dataset:
    datasets = require("datasets", "train")
    try:
        return datasets.load_dataset(source, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ActshiftError(
            f"There is no data at {source!r}: no such file, and the hub gave no split {split!r} of such a dataset "
            f"({first_line(error).rstrip('.')})."
        ) from error
