"""Read a file of rows, whatever its format, as it is: nothing is checked yet."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from actshift.errors import ActshiftError, first_line, require

Row = Mapping[str, Any]


def is_file_name(source: str) -> bool:
    """Tell whether `source` is a file, or is called like one; else it is the id of a dataset."""
    return Path(source).is_file() or _format(Path(source)) in _READERS


def _format(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path: Path) -> list[Row]:
    """Return the rows of a .jsonl, .json, .csv or .parquet file, all but the last also as .gz.

    Raises ActshiftError where there is no such file, or it cannot be read.
    """
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
