"""Read a file of rows in any supported format, without checking the rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from actshift.errors import ActshiftError, first_line, require

Row = Mapping[str, Any]
"""One row of a file or a dataset: values by column name."""


def is_file_name(source: str) -> bool:
    """Return whether `source` is a file or is named like one. Otherwise it is the id of a dataset on the hub."""
    return Path(source).is_file() or _format(Path(source)) in _READERS


def read_file(path: Path) -> list[Row]:
    """Return the rows of a .jsonl, .json, .csv or .parquet file. All formats but Parquet may be compressed as .gz.

    Raises:
        ActshiftError: the file does not exist, has another format, or cannot be read.
    """
    if not path.is_file():
        raise ActshiftError(f"There is no file {path}.")
    if _format(path) not in _READERS:
        raise ActshiftError(f"{path} has an unknown format; use one of {', '.join(_READERS)}.")
    try:
        return _READERS[_format(path)](path)
    except ActshiftError:
        raise
    except (OSError, EOFError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, not JSON, not Parquet
        raise ActshiftError(f"{path} cannot be read: {first_line(error).rstrip('.')}.") from error


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


def _read_parquet(path: Path) -> list[Row]:
    return require("pyarrow.parquet", "train").read_table(path).to_pylist()


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
