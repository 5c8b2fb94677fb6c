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
            fit=FitResult(**values["fit"]) if values["fit"] else None,
            validation=Score(**values["validation"]),
            test=Score(**values["test"]) if values["test"] else None,
        )
<<<<<<< HEAD


def train_cell(settings: TrainSettings) -> FitResult:
    """Train as `settings` say, from where a run in the same folder stopped; `seconds` are those of all its phases."""
    run = RunFolder(Path(settings.out or ""))
    result = read_result(run.path) if run.finished else train(settings, resume=run.unfinished)
    before = result.selection.fit.seconds if result.selection else 0.0
    return replace(result.fit, seconds=result.fit.seconds + before)


def cell_model(settings: TrainSettings, trained: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model that `settings` trained, read from its folder, or the base that they start from.

    All methods are scored at one precision, in which a whole model needs no more than its base. The head is that of the
    rows, at its first weights where nothing was trained.
    """
    whole = trained and settings.method == "full"
    head = read_result(Path(str(settings.out))).head if trained else read_inputs(settings).head
    source = settings.out if whole else settings.model
    from actshift.tuner.loading import load_any_adapter

    model, tokenizer = load_base(
        TrainSettings(model=source, precision=settings.precision, trust_remote_code=settings.trust_remote_code), head
    )
    if trained and not whole:
        model = load_any_adapter(model, str(settings.out)).eval()
    return model, tokenizer
=======
>>>>>>> compare
