"""Load rows from files or the hub, and check every row before a program uses any of them."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.data.layouts import ALPACA, CHATS, GOLD, OPTIONAL, TEMPLATE, Columns, Layout, RowProblem, find_layout
from actshift.data.readers import Row, is_row_file, read_file
from actshift.data.values import LISTS, check_values, is_usable, normalize, storable
from actshift.errors import ActshiftError, check_choice, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset

LANGUAGE: tuple[Columns, ...] = (("prompt", "completion"), ("messages",), ("text",))
"""Rows for language modelling."""
LABELLED: tuple[Columns, ...] = (("text", "label"), ("tokens", "tags"), ("text", "text_pair"))
"""Rows for an encoder: a text or a pair of texts with a class, words with one tag each, or two related texts."""
PREFERENCES: tuple[Columns, ...] = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""Rows with a chosen and a rejected completion, as text after a prompt or as two whole chats."""
PROMPTS: tuple[Columns, ...] = (("prompt",),)
"""Rows with a prompt that the model completes for a reward."""


_MOST_REPEATS = 20  # by how much weights may increase the number of rows
_WEIGHT = re.compile(r"(.+)=([-+]?[\d.]+(?:[eE][-+]?\d+)?|nan|inf)")


def load_rows(
    source: str | Sequence[str],
    split: str | None = None,
    limit: int | None = None,
    kinds: Sequence[Columns] = LANGUAGE,
    renames: Sequence[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """Return the rows of a file or of a dataset on the hub, or of several, after checking each of them.

    Values of a CSV file stay text: the completion `007` is not a number, and `NA` is not a missing value. The
    description of the result (`rows.info.description`) names the layout that was found.

    Args:
        source: a .jsonl, .json, .csv or .tsv file (also as .gz), a .parquet file, or the id of a dataset. Several are
            joined; with weights, as in "a.jsonl=0.7", they are mixed in these proportions.
        split: the split of a dataset on the hub, "train" by default. A file has no splits.
        limit: the number of rows to keep from the start of each source, or None for all.
        kinds: the allowed sets of columns. Alpaca's and ShareGPT's columns are converted to them.
        renames: columns with other names, such as "prompt=question".
        seed: of the mixing.

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
    columns = _parse_renames(renames or (), kinds)
    weights = parse_sources(source)
    parts = [check_rows(_open(name, split), name, kinds, columns, limit) for name in weights]
    return parts[0] if len(parts) == 1 else _mix(parts, weights, seed)


def check_rows(
    rows: Any,
    source: str,
    kinds: Sequence[Columns] = LANGUAGE,
    renames: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return rows with the columns that `load_rows` keeps; errors as there name the `source`.

    `rows` is a list, a dataset, or anything else whose every iteration yields all rows.
    """
    from actshift.data.arrow import to_dataset

    names: Counter[str] = Counter()  # the rows that have each column
    usable: Counter[str | None] = Counter()  # those with a value that an optional column may have
    count = 0
    for row in islice(rows, limit):
        count += 1
        names.update(row.keys())
        usable.update(name for name, value in row.items() if value is not None and is_usable(name, value))
    if not count:
        raise ActshiftError(f"{source} holds no rows.")
    layout = find_layout([*names], kinds, source, renames)
    first = next(_checked(islice(rows, 1), layout, source))
    columns = tuple(name for name in layout.kind if name in first)
    nested = tuple(name for name in columns if isinstance(first[name], list) and name in CHATS)
    optional = dict.fromkeys(name for column in columns for name in OPTIONAL.get(column, ()) if name not in columns)
    columns += tuple(name for name in optional if usable[layout.column(name)] == count)
    if nested:
        template = tuple(name for name in TEMPLATE if usable[layout.column(name)])
        nested, columns = nested + template, columns + template
    checked = _checked(islice(rows, limit), layout, source, columns, nested)
    dataset = to_dataset(checked, columns, nested, [name for name in LISTS if name in columns])
    unused = [name for name in optional if layout.column(name) in names and name not in columns]
    reasons = [f"{name} (missing in a row, or of another type)" for name in unused]
    description = f"{source}: {layout.description(reasons)}"
    if unused or layout.unused or layout.found != layout.kind:
        warnings.warn(f"Layout of {description}.", stacklevel=2)
    dataset.info.description = description
    return dataset


def parse_sources(source: str | Sequence[str]) -> dict[str, float | None]:
    """Return the weight of each source of rows, or None without weights. The name of a file that exists has none.

    Raises:
        ActshiftError: a source is repeated, or only some sources have weights.

    >>> parse_sources(["a.jsonl=0.7", "b.jsonl=0.3"])
    {'a.jsonl': 0.7, 'b.jsonl': 0.3}
    """
    weights: dict[str, float | None] = {}
    files: set[str] = set()
    for given in [source] if isinstance(source, str) else source:
        found = None if os.path.lexists(given.replace("\0", "")) else _WEIGHT.fullmatch(given)
        try:
            name, weight = (found[1], float(found[2])) if found else (given, None)
        except ValueError:  # 1.2.3
            name, weight = given, None
        path = os.path.realpath(name.replace("\0", ""))
        if name in weights or (path in files and os.path.lexists(path)):
            raise ActshiftError(f"The rows {name} are given twice; give each source once, or with a weight, {name}=2.")
        if weight is not None and not 0 < weight < math.inf:
            raise ActshiftError(f"The weight of {name} must be a number above 0, got {found and found[2]}.")
        weights[name] = weight
        files.add(path)
    if not weights:
        raise ActshiftError("No rows are given; name a file or a dataset.")
    if len(weights) == 1 and None not in weights.values():
        raise ActshiftError(f"The weight of {', '.join(weights)} has no effect without other rows; leave it out.")
    if len({weight is None for weight in weights.values()}) > 1:
        raise ActshiftError(f"Give all of {', '.join(weights)} a weight, as in {next(iter(weights))}=0.5, or none.")
    return weights


def _parse_renames(renames: Sequence[str], kinds: Sequence[Columns]) -> dict[str, str]:
    known = {name for kind in kinds for name in kind} | {
        *TEMPLATE,
        *GOLD,
        *ALPACA,
        "text_pair",
        "conversations",
        "system",
    }
    columns: dict[str, str] = {}
    for given in renames:
        name, sign, column = given.partition("=")
        if not (sign and name and column):
            raise ActshiftError(f"map must be name=column, as in prompt=question, got {given!r}.")
        if name in columns:
            raise ActshiftError(f"map gives {name} twice; name one column for it.")
        check_choice("name in map", name, sorted(known))
        columns[name] = column
    return columns


def _open(source: str, split: str | None) -> Iterable[Row]:
    if not source.strip() or "://" in source:
        raise ActshiftError(f"There is no data at {source!r}: give a file, or the id of a dataset on the hub.")
    if is_row_file(Path(source)):
        return read_file(Path(source))
    from actshift.data.arrow import DatasetRows

    datasets, split = require("datasets", "train"), split or "train"
    try:
        return DatasetRows(datasets.load_dataset(source, split=split))
    except Exception as error:  # a local folder is read by many libraries
        raise ActshiftError(
            f"There is no data at {source!r}: it is not a file, and no split {split!r} of a dataset with this id "
            f"could be loaded from the hub ({first_line(error).rstrip('.')})."
        ) from error


def _mix(parts: Sequence[Dataset], weights: Mapping[str, float | None], seed: int) -> Dataset:
    """Join datasets, or mix them by weights. Every row is used, and mixing repeats rows where it needs more."""
    from actshift.data.arrow import ExactJson

    datasets = require("datasets", "train")
    names = list(dict.fromkeys(name for part in parts for name in part.column_names))
    whole: list[Dataset] = []
    for source, part in zip(weights, parts, strict=True):
        for name in names:
            features = [other.features[name] for other in parts if name in other.column_names]
            if name in part.column_names and all(feature == features[0] for feature in features):
                if len(features) < len(parts) and name in GOLD:
                    part = part.remove_columns(name)
            elif name in TEMPLATE:
                part = part.add_column(name, [None] * len(part), feature=ExactJson())  # pyright: ignore[reportArgumentType]
            elif name not in GOLD:
                kinds = "; ".join(str(part.info.description) for part in parts)
                raise ActshiftError(
                    f"{source} cannot be mixed with the other rows, whose {name} is of another kind: {kinds}."
                )
        whole.append(part)
    description = "; ".join(str(part.info.description) for part in parts)
    shares = [weight for weight in weights.values() if weight is not None]
    if shares:
        scaled = [weight / max(shares) for weight in shares]  # a sum of the weights themselves may overflow
        probabilities = [weight / sum(scaled) for weight in scaled]
        count = sum(map(len, whole))
        if any(len(part) > _MOST_REPEATS * count * share for part, share in zip(whole, probabilities, strict=True)):
            raise ActshiftError(
                f"The weights {', '.join(f'{share:g}' for share in shares)} would make more than {_MOST_REPEATS} times "
                f"the {count} rows, because every row is used; give weights closer to the numbers of rows."
            )
        mixed = datasets.interleave_datasets(whole, probabilities, seed, stopping_strategy="all_exhausted")
    else:
        mixed = datasets.concatenate_datasets(whole)
    mixed.info.description = description
    return mixed


def _checked(
    rows: Iterable[Row], layout: Layout, source: str, columns: Columns = (), nested: Columns = ()
) -> Generator[dict[str, Any], None, None]:
    """Yield each row in the layout's kind, or raise ActshiftError. Values of `nested` columns are JSON texts."""
    for number, row in enumerate(rows, start=1):
        try:
            converted = layout.convert(row)
            is_chat_pair = isinstance(converted.get("chosen"), list)
            kind = ("chosen", "rejected") if is_chat_pair and "chosen" in layout.kind else layout.kind
            check_values(converted, kind)
            values = {name: normalize(name, converted.get(name)) for name in columns or kind}
            yield {name: storable(name, value, name in nested) for name, value in values.items()} if columns else values
        except RowProblem as problem:
            raise ActshiftError(f"Row {number} of {source} {problem}.") from None


def find_columns(names: Sequence[str], kinds: Sequence[Columns]) -> Columns | None:
    """Return the first set of columns in `kinds` whose names are all in `names`, or None.

    >>> find_columns(["id", "text", "label"], LABELLED)
    ('text', 'label')
    """
    return next((columns for columns in kinds if set(columns) <= set(names)), None)
