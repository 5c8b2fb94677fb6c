"""One unit of work: a method at one learning rate with one seed, and the record that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actshift.compare.methods import BASE
from actshift.files import write_whole
from actshift.training import FitResult, TrainSettings, train
from actshift.training.build import load_base
from actshift.training.data import read_inputs
from actshift.training.result import read_result
from actshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        """Where a comparison in `out` keeps it."""
        own = f"{self.method}/lr-{self.rate:g}-seed-{self.seed}"
        return out / "cells" / (self.method if self.method == BASE else own)


BASE_CELL = Cell(BASE, 0.0, 0)


@dataclass(frozen=True)
class Score:
    """Rows answered exactly, of how many, and how long it took."""

    correct: int
    total: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share of rows answered exactly, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True)
class Record:
    """What a cell came to: its training (None for the base), and its scores; `test` is None until it is chosen.

    `made_with` holds all that could have made it come out otherwise.
    """

    made_with: Mapping[str, Any]
    parameters: int
    fit: FitResult | None
    validation: Score
    test: Score | None = None

    @property
    def trainable(self) -> int:
        """Parameters that were trained."""
        return self.fit.trainable if self.fit else 0

    def write(self, folder: Path) -> None:
        """Write record.json into the cell's folder, whole or not at all."""
        write_whole(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Return the record in a cell's folder, None where there is none yet."""
        path = folder / RECORD
        if not path.is_file():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            made_with=values["made_with"],
            parameters=values["parameters"],
            fit=FitResult.from_dict(values["fit"]) if values["fit"] else None,
            validation=Score(**values["validation"]),
            test=Score(**values["test"]) if values["test"] else None,
        )


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
    from actshift.tuner.lora import load_any_adapter

    model, tokenizer = load_base(
        TrainSettings(model=source, precision=settings.precision, trust_remote_code=settings.trust_remote_code), head
    )
    if trained and not whole:
        model = load_any_adapter(model, str(settings.out)).eval()
    return model, tokenizer
