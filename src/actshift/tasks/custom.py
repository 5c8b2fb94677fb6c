"""One's own task, from a small file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, did_you_mean
from actshift.files import read_mapping
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import SPLITS, Example, Hub, Row, Source, SplitSlice, split_by_hash
from actshift.tasks.task import Task

COLUMN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """Text in which `{column}` stands for that column of a row; no other brace means anything.

    >>> Template("What is {a} + {b}?").fill({"a": 2, "b": 3})
    'What is 2 + 3?'
    """

    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names."""
        return tuple(dict.fromkeys(COLUMN.findall(self.text)))

    def fill(self, row: Row) -> str:
        """Return the text for a row; raise KeyError for a column that it lacks."""
        return COLUMN.sub(lambda match: str(row[match[1]]), self.text)


@dataclass(frozen=True)
class Files:
    """A .jsonl, .json, .csv or .parquet file for each split of the source, as `load_rows` reads them."""

    paths: Mapping[str, Path]
    parts: Mapping[str, SplitSlice]

    @property
    def rows(self) -> Mapping[str, int]:
        """Nothing: they are counted."""
        return {}

    def read(self, task: str, split: str) -> Iterable[Row]:
        """Return the rows of the file; raise ActshiftError where it cannot be read."""
        from actshift.data.readers import read_file

        return read_file(self.paths[split])

    def where(self, task: str, split: str) -> str:
        """Name the file."""
        return str(self.paths[split])

    @property
    def named(self) -> str:
        """The files."""
        return ", ".join(map(str, self.paths.values()))


KEYS = {
    "name": str,
    "title": str,
    "data": str | dict,
    "hub": str,
    "config": str,
    "revision": str,
    "splits": dict,
    "prompt": str,
    "completion": str,
    "answer": str,
    "choices": str | list,
    "scorer": str,
    "settings": dict,
    "max_new_tokens": int,
}
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""How one file is cut where nothing else is said."""
WHOLE = "all"
"""The one split of rows in one file."""
TOLERANCE = 1e-6
"""Of a sum of decimals that should be 1."""


def read_task(path: str | Path) -> Task:
    """Return the task that a .yaml or .json file describes; docs/tasks.md says how, with an example.

    Raises ActshiftError for a file that cannot be read, a key that is unknown or missing, a value of the wrong kind,
    an unknown scorer, and a prompt that ends in a space, after which no model's own first token begins.
    """
    values = read_mapping(path, "task file")
    _check(path, values)
    prompt, completion = Template(values["prompt"]), Template(values["completion"])
    answer, choices = values.get("answer"), values.get("choices", [])

    def example(row: Row) -> Example:
        completed = completion.fill(row)
        gold = completed.strip() if answer is None else str(row[answer])
        chosen = row[choices] if isinstance(choices, str) else choices
        return Example(prompt.fill(row), completed, gold, tuple(map(str, chosen)))

    return Task(
        name=values.get("name", Path(path).stem),
        title=values.get("title", f"The task of {Path(path).name}"),
        source=_source(Path(path), values),
        example=example,
        scorer=get_scorer(values.get("scorer", "exact")),
        settings=values.get("settings", {}),
        max_new_tokens=values.get("max_new_tokens", 16),
    )


def _check(path: str | Path, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in KEYS:
            raise ActshiftError(
                f"The task file {path} has the key {key!r}{did_you_mean(key, KEYS)}; it may have {', '.join(KEYS)}."
            )
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise ActshiftError(f"In the task file {path}, {key} cannot be {value!r}; docs/tasks.md shows an example.")
    if missing := [key for key in ("prompt", "completion") if key not in values]:
        raise ActshiftError(f"The task file {path} has no {missing[0]}: text in which {{column}} stands for a column.")
    if values["prompt"] != values["prompt"].rstrip():
        raise ActshiftError(
            f"The prompt in the task file {path} ends in white space; begin the completion with it, "
            "since a model's own first token does."
        )
    if ("data" in values) == ("hub" in values):
        raise ActshiftError(f"The task file {path} must say where the rows are: either data, a file, or hub, an id.")


def _source(path: Path, values: Mapping[str, Any]) -> Source:
    if "hub" in values:
        named = values.get("splits", {split: split for split in SPLITS})
        return Hub(values["hub"], values.get("config"), values.get("revision", "main"), _parts(path, named, "train"))
    data = values["data"]
    if isinstance(data, str):
        parts = _parts(path, values.get("splits", SHARES), WHOLE)
        if named := [part.split for part in parts.values() if part.split != WHOLE]:
            raise ActshiftError(
                f"The data of the task file {path} has one file, and no split {named[0]!r}; give shares, such as 0.1."
            )
        return Files({WHOLE: path.parent / data}, parts)
    if "splits" in values:
        raise ActshiftError(f"In the task file {path}, data names a file for each split already; leave splits out.")
    _check_splits(path, data)
    return Files(
        {split: path.parent / str(name) for split, name in data.items()}, {name: SplitSlice(name) for name in data}
    )


def _parts(path: Path, splits: Mapping[str, Any], whole: str) -> dict[str, SplitSlice]:
    """Return the parts of splits given by name, as "validation", or as a share of the split `whole`, as 0.1."""
    _check_splits(path, splits)
    named = {split: SplitSlice(value) for split, value in splits.items() if isinstance(value, str)}
    shares = {split: value for split, value in splits.items() if split not in named}
    numbers = all(isinstance(share, int | float) and share > 0 for share in shares.values())
    if not numbers or sum(shares.values()) > 1 + TOLERANCE:
        raise ActshiftError(
            f"In the task file {path}, a split is a name or a share, and shares are above 0 and 1 together, "
            f"got {dict(splits)}."
        )
    return {**split_by_hash(whole, **shares), **named}


def _check_splits(path: Path, splits: Mapping[str, Any]) -> None:
    for split in splits:
        if split not in SPLITS:
            raise ActshiftError(
                f"In the task file {path}, a split must be one of {', '.join(SPLITS)}, got {split!r}"
                f"{did_you_mean(split, SPLITS)}."
            )
