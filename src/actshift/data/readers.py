"""Read rows from files, one at a time: each reader yields a file's rows, and names the place of every problem."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, cast

from actshift.data.json_text import JsonStream, parse_json
from actshift.errors import ActshiftError, find_surrogate, first_line, first_repeated, require

Row = Mapping[str, Any]  # values by column name

MAX_ROW = 16 * 2**20  # characters of one row
MAX_RATIO = 200  # of a compressed file's characters to its bytes; text has 3 to 20, and the largest possible is 1,030
_FREE = 4 * 2**20  # characters of a compressed file that are read without a check of the ratio
_MB = MAX_ROW // 2**20


@dataclass(frozen=True)
class RowFile:
    """The rows of a .jsonl, .json, .csv, .tsv or .parquet file. Every iteration reads the file from its start.

    All formats but Parquet are text in UTF-8, or in UTF-16 with a byte order mark, and may be compressed as .gz. An
    iteration raises ActshiftError if the file cannot be read, or if a row is damaged or longer than `MAX_ROW`.
    """

    path: Path

    def __post_init__(self) -> None:
        """Raise ActshiftError unless there is a regular file with a known format."""
        path, kind = self.path, _kind_of(self.path)
        if kind is None:
            raise ActshiftError(f"There is no file {path}.")
        if kind != "file":
            raise ActshiftError(f"{path} is {kind}; give a regular file of rows.")
        if file_format(path) not in _READERS:
            raise ActshiftError(f"{path} has an unknown format; use one of {', '.join(_READERS)}.")

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows as mappings from column names to values."""
        path = self.path
        try:
            yield from _READERS[file_format(path)](path)
        except ActshiftError:
            raise
        except OSError as error:
            raise ActshiftError(f"{path} cannot be read: {error.strerror or first_line(error).rstrip('.')}.") from error
        except (EOFError, zlib.error) as error:
            raise ActshiftError(f"{path} cannot be read: its compressed data are damaged or incomplete.") from error


def read_file(path: Path) -> Iterable[Row]:
    """Return the rows of a file; see `RowFile` for the formats and the errors."""
    return RowFile(path)


def file_format(path: Path) -> str:
    """Return the suffix that names a file's format, without .gz.

    >>> file_format(Path("rows.JSONL.gz"))
    '.jsonl'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_row_file(path: Path) -> bool:
    """Return whether a path is meant as a file of rows: it has such a suffix, or exists and is not a folder."""
    return _kind_of(path) not in (None, "a folder") or file_format(path) in _READERS


def read_lines(path: Path) -> Generator[str, None, None]:
    """Yield the lines of a text file, which end at \\n, \\r\\n or \\r only, with their ends.

    Raises:
        ActshiftError: a line is too long or is not text.
        OSError: the file cannot be read.
    """
    with _open(path, newline=None) as file:
        yield from _lines(file)


def _lines(file: _Text) -> Generator[str, None, None]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_ROW + 1), ""), start=1):
        if len(line) > MAX_ROW:
            raise ActshiftError(f"Line {number} of {file.path} has more than {_MB} million characters; split it.")
        _check_encoding(line, f"Line {number} of {file.path}")
        file.check_ratio(len(line))
        yield line


class _Text(io.TextIOWrapper):
    """The text of a file that may be compressed."""

    path: Path
    raw: io.BufferedReader  # the compressed bytes
    characters = 0

    def check_ratio(self, characters: int) -> None:
        """Count characters that were read, and raise ActshiftError for a compressed file that expands too much."""
        self.characters += characters
        if self.characters > _FREE and self.characters > MAX_RATIO * self.raw.tell():
            problem = f"{self.path} expands to more than {MAX_RATIO} times its compressed size"
            raise ActshiftError(f"{problem}, as no text does. If it is right, decompress it first.")

    def read_checked(self, size: int) -> str:
        """Return at most this many characters; raises what `check_ratio` and `_check_encoding` raise."""
        text = self.read(size)
        _check_encoding(text, str(self.path))
        self.check_ratio(len(text))
        return text


@contextmanager
def _open(path: Path, newline: str | None) -> Generator[_Text, None, None]:
    """Open a text file. Bytes that are not UTF-8 become surrogates, which `_check_encoding` finds."""
    with path.open("rb") as raw:
        binary = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
        start = cast("io.BufferedReader", binary).peek(2)[:2]
        is_utf16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
        errors = "strict" if is_utf16 else "surrogateescape"
        file = _Text(cast("io.BufferedReader", binary), encoding, errors, newline)
        file.path, file.raw = path, raw
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ActshiftError(f"{path} begins as UTF-16 but is not; save it as UTF-8.") from error


def _check_encoding(text: str, place: str) -> None:
    if (index := find_surrogate(text)) is not None:
        byte = ord(text[index]) - 0xDC00
        raise ActshiftError(f"{place} is not UTF-8: it has the byte 0x{byte:02x}. Save the file as UTF-8.")


def _kind_of(path: Path) -> str | None:
    """Return "file", or a description of another kind of object, or None if the path does not exist."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: the name has a NUL character
        return "a link to a file that does not exist" if os.path.islink(str(path).replace("\0", "")) else None
    return "file" if stat.S_ISREG(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        raise ActshiftError(f"{place} is {kinds.get(type(row), 'a number')}; it must be an object with columns.")
    return cast(Row, row)


def _read_json_lines(path: Path) -> Generator[Row, None, None]:
    for number, line in enumerate(read_lines(path), start=1):
        if line := line.strip(" \t\r\n\ufeff"):  # joined files have byte order marks within
            place = f"Line {number} of {path}"
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ActshiftError(f"{place} is not valid JSON: {first_line(error).rstrip('.')}.") from error
            yield _object(row, place)


def _read_json(path: Path) -> Generator[Row, None, None]:
    """Yield the objects in a JSON list, or objects one after the other."""
    with _open(path, newline=None) as file:
        stream = JsonStream(file.read_checked, MAX_ROW)
        number, is_list = 0, stream.skip() == "["
        stream.position += is_list
        while (following := stream.skip()) not in ("", "]" if is_list else ""):
            place = f"Row {number + 1} of {path}"
            if is_list and number:
                if following != ",":
                    raise ActshiftError(f"{place} is not valid JSON: there is no comma before it.")
                stream.position += 1
                stream.skip()
            try:
                row = stream.value()
            except ValueError as error:
                raise ActshiftError(f"{place} is not valid JSON: {first_line(error).rstrip('.')}.") from error
            yield _object(row, place)
            number += 1
        if is_list and not following:
            raise ActshiftError(f"{path} is not valid JSON: its list is not closed after row {number}.")
        stream.position += is_list
        if stream.skip():
            raise ActshiftError(f"{path} is not valid JSON: text follows the end of its list.")


def _read_csv(path: Path, delimiter: str = ",") -> Generator[Row, None, None]:
    with _open(path, newline="") as file, _long_fields():
        reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            has_index = header[:1] == [""]  # pandas writes the row numbers as a column without a name
            header = header[has_index:]
            _check_header(header, path)
            number = 0
            for fields in reader:
                if not fields:  # a blank line
                    continue
                number += 1
                if has_index and not fields.pop(0).isdecimal():
                    _check_header(["", *header], path)
                if len(fields) != len(header):
                    counts = f"{len(fields)} field{'s' * (len(fields) != 1)}, but the header has {len(header)}"
                    fix = "Put fields with commas or line breaks in double quotes"
                    raise ActshiftError(f"Row {number} of {path} (line {reader.line_num}) has {counts}. {fix}.")
                yield dict(zip(header, fields, strict=True))
        except csv.Error as error:
            reason = first_line(error)
            reason = "a quote is not closed" if "unexpected end" in reason else reason
            raise ActshiftError(f"{path} is not valid CSV near line {reader.line_num}: {reason}.") from error


def _check_header(header: list[str], path: Path) -> None:
    if len(header) == 1 and (found := next((mark for mark in "\t;|" if mark in header[0]), None)):
        fix = "separate fields by commas" if found != "\t" else "name the file .tsv, or separate fields by commas"
        raise ActshiftError(f"The header of {path} is one column, {header[0][:80]!r}; {fix}.")
    repeated = first_repeated(header)
    if repeated is not None or (header and "" in header):
        what = f"the column {repeated!r} twice" if repeated else "a column without a name"
        raise ActshiftError(f"The header of {path} has {what}; give every column a name of its own.")


_limits: list[int] = []  # of the csv module, which has one for the whole process: the original, and one per reader
_lock = Lock()


@contextmanager
def _long_fields() -> Generator[None, None, None]:
    """Allow fields up to `MAX_ROW` in the csv module, as long as any reader is active."""
    with _lock:
        _limits.append(csv.field_size_limit(MAX_ROW))
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                csv.field_size_limit(limit)


def _read_parquet(path: Path) -> Iterator[Row]:
    require("datasets", "train")
    from actshift.data.arrow import read_parquet

    return read_parquet(path)


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".parquet": _read_parquet,
}
FORMATS = tuple(_READERS)
