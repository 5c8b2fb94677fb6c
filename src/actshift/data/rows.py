"""Rows, from a file or the hub, each of them checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.data.columns import LANGUAGE, Columns, columns_of, fault, kept_beside, plain
from actshift.data.readers import is_file_name, read_file
from actshift.errors import ActshiftError, first_line
from actshift.extras import require

if TYPE_CHECKING:
    from datasets import Dataset


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
