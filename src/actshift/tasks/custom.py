"""Custom tasks, described by a .yaml or .json file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.data.readers import Row
from actshift.errors import ActshiftError, did_you_mean
from actshift.files import read_mapping
from actshift.tasks.formatting import Example
from actshift.tasks.scorers import get_scorer
from actshift.tasks.source import SHARES, SPLITS, Files, Hub, Source, SplitSlice, split_by_hash, whole_splits
from actshift.tasks.task import Task

COLUMN = re.compile(r"\{(\w+)\}")
KEYS: dict[str, Any] = {
    "name": str,
    "title": str,
    "data": (str, dict),
    "hub": str,
    "config": str,
    "revision": str,
    "splits": dict,
    "prompt": str,
    "completion": str,
    "answer": str,
    "choices": (str, list),
    "scorer": str,
    "settings": dict,
    "max_new_tokens": int,
}
"""The keys of a task file, with the types of their values."""
WHOLE = "all"
"""The name of the only split of a single file."""
TOLERANCE = 1e-6
"""The allowed rounding error of a sum of shares."""


@dataclass(frozen=True)
class Template:
    """Text in which `{column}` stands for that column of a row. Other braces are plain text.

    >>> Template("What is {a} + {b}?").fill({"a": 2, "b": 3})
    'What is 2 + 3?'
    """

    text: str

    def fill(self, row: Row) -> str:
        """Return the text for a row.

        Raises:
            KeyError: the row lacks a column.
        """
        return COLUMN.sub(lambda match: str(row[match[1]]), self.text)


def read_task(path: str | Path) -> Task:
    """Return the task that a .yaml or .json file describes. docs/tasks.md explains the keys, with an example.

    Raises:
        ActshiftError: the file cannot be read, a key is unknown or missing, a value has the wrong type, the scorer is
            unknown, or the prompt ends in white space, after which a model's own first token does not start.
    """
    values = read_mapping(path, "task file")
    _check(path, values)
    prompt, completion = Template(values["prompt"]), Template(values["completion"])
    answer, choices = values.get("answer"), values.get("choices", [])

    def example(row: Row) -> Example:
        completed = completion.fill(row)
        gold = completed.strip() if answer is None else str(row[answer])
        texts = row[choices] if isinstance(choices, str) else choices
        return Example(prompt.fill(row), completed, gold, tuple(map(str, texts)))

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
            raise ActshiftError(f"In the task file {path}, {key} cannot be {value!r}; docs/tasks.md has an example.")
    if missing := [key for key in ("prompt", "completion") if key not in values]:
        raise ActshiftError(f"The task file {path} has no {missing[0]}: text in which {{column}} stands for a column.")
    if values["prompt"] != values["prompt"].rstrip():
        raise ActshiftError(
            f"The prompt in the task file {path} ends in white space, but a model's first token starts with it; "
            "move the white space to the start of the completion."
        )
    if ("data" in values) == ("hub" in values):
        raise ActshiftError(
            f"The task file {path} must name the source of its rows: either data (a file) or hub (a dataset id)."
        )


def _source(path: Path, values: Mapping[str, Any]) -> Source:
    if "hub" in values:
        splits = values.get("splits", {split: split for split in SPLITS})
        slices = _slices(path, splits, "train")
        return Hub(values["hub"], values.get("revision", "main"), values.get("config"), slices=slices)
    data = values["data"]
    if isinstance(data, str):
        slices = _slices(path, values.get("splits", SHARES), WHOLE)
        if named := [part.split for part in slices.values() if part.split != WHOLE]:
            raise ActshiftError(
                f"The data of the task file {path} is one file without a split {named[0]!r}; use shares such as 0.1."
            )
        return Files({WHOLE: path.parent / data}, slices=slices)
    if "splits" in values:
        raise ActshiftError(f"In the task file {path}, data already names a file for each split; leave out splits.")
    _check_splits(path, data)
    paths = {split: path.parent / str(name) for split, name in data.items()}
    return Files(paths, slices=whole_splits(**{split: split for split in data}))


def _slices(path: Path, splits: Mapping[str, Any], whole: str) -> dict[str, SplitSlice]:
    """Return the slices of splits that are names, as "validation", or shares of the split `whole`, as 0.1."""
    _check_splits(path, splits)
    named = {split: SplitSlice(value) for split, value in splits.items() if isinstance(value, str)}
    shares = {split: value for split, value in splits.items() if split not in named}
    are_valid = all(isinstance(share, int | float) and share > 0 for share in shares.values())
    if not are_valid or sum(shares.values()) > 1 + TOLERANCE:
        raise ActshiftError(
            f"In the task file {path}, a split must be a name or a share above 0, and all shares at most 1 together, "
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
