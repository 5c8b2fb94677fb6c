"""Cells of a comparison (a method at one learning rate with one seed) and the records that they leave on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from actshift.compare.methods import BASE
from actshift.files import write_whole
from actshift.training import FitResult
from actshift.training.run_folder import read_json

RECORD, FAILURE = "record.json", "failed.json"


class Cell(NamedTuple):
    """A method at a learning rate with a seed; `BASE_CELL` is the untouched model.

    >>> Cell("vector", 0.002, 1).folder(Path("table")).as_posix()
    'table/cells/vector/lr-0.002-seed-1'
    """

    method: str
    rate: float
    seed: int

    def __str__(self) -> str:
        return self.method if self.method == BASE else f"{self.method}, learning rate {self.rate:g}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the cell's folder in a comparison that writes to `out`."""
        name = self.method if self.method == BASE else f"{self.method}/lr-{self.rate:g}-seed-{self.seed}"
        return out / "cells" / name


BASE_CELL = Cell(BASE, 0.0, 0)


@dataclass(frozen=True)
class Score:
    """Number of correctly answered rows, number of rows, and the time that generation took."""

    correct: int
    total: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of correctly answered rows, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True)
class Record:
    """Result of a cell: its training (None for the base model) and its scores.

    `test` is None until the learning rate of the method is chosen. `made_with` contains every setting that can change
    the result.
    """

    made_with: Mapping[str, Any]
    parameters: int
    fit: FitResult | None
    validation: Score
    test: Score | None = None

    def write(self, folder: Path) -> None:
        """Write record.json into the cell's folder atomically."""
        write_whole(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Return the record in a cell's folder, or None if it has none yet."""
        path = folder / RECORD
        if not path.is_file():
            return None
        values = read_json(path)
        return cls(
            made_with=values["made_with"],
            parameters=values["parameters"],
            fit=FitResult.from_dict(values["fit"]) if values["fit"] else None,
            validation=Score(**values["validation"]),
            test=Score(**values["test"]) if values["test"] else None,
        )
