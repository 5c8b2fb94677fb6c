"""Cells of a comparison (a method at one learning rate with one seed): their work, and the records that they leave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from actshift.compare.methods import BASE
from actshift.files import write_atomically
from actshift.training import FitResult, TrainSettings, train
from actshift.training.build import load_base
from actshift.training.data import read_inputs
from actshift.training.result import read_result
from actshift.training.run_folder import RunFolder, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORD = "record.json"


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
    """Number of correctly answered rows, number of rows, and the time that generation took.

    `outcomes` has a 1 for each correct row and a 0 for each wrong one, in their order. `choices` is the same for the
    most probable choices, or None if the rows have none.
    """

    correct: int
    total: int
    seconds: float
    outcomes: str = ""
    choices: str | None = None

    @property
    def accuracy(self) -> float:
        """Share of correctly answered rows, 0 to 1."""
        return self.correct / self.total

    @property
    def choice_accuracy(self) -> float | None:
        """Share of rows whose most probable choice is correct, 0 to 1; None if the rows have no choices."""
        return None if self.choices is None else self.choices.count("1") / self.total


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
        write_atomically(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Return the record in a cell's folder, or None if it has none yet."""
        if not (folder / RECORD).is_file():
            return None
        values = read_json(folder / RECORD)
        values["fit"] = values["fit"] and FitResult.from_dict(values["fit"])
        for name in ("validation", "test"):
            values[name] = values[name] and Score(**values[name])
        return cls(**values)


@dataclass(frozen=True)
class CellJob:
    """Everything that a process needs to know to run one cell, whose record and log go to `folder`.

    Args:
        settings: settings of the training, with the validation rows as `eval_data`.
        trains: False for the base model, which uses `settings` only for loading.
        test: path of the test rows, or None while the learning rate is not chosen.
    """

    folder: str
    settings: TrainSettings
    trains: bool
    test: str | None
    max_new_tokens: int | None
    scorer: str | None
    eval_batch_size: int
    made_with: dict[str, Any]
    one_thread: bool


def run_job(job: CellJob) -> None:
    """Train and score the cell as far as its record is incomplete, and write the record after each score."""
    import torch
    from filelock import FileLock

    if job.one_thread:
        torch.set_num_threads(1)
    folder, settings = Path(job.folder), job.settings
    with FileLock(folder / ".lock"):  # a process of a comparison that was just killed may need a moment to end
        record, loaded = Record.read(folder), None
        # A record that was copied from another machine has no weights, which the test rows need.
        lacks_weights = job.trains and not RunFolder(Path(settings.out or "")).finished
        if record is None or (job.test and record.test is None and lacks_weights):
            fit = _train(settings) if job.trains else None
            loaded = _load_model(settings, job.trains)
            parameters = fit.parameters if fit else loaded[0].num_parameters()
            record = Record(job.made_with, parameters, fit, _score(job, loaded, str(settings.eval_data)))
            record.write(folder)
        if job.test and record.test is None:
            loaded = loaded or _load_model(settings, job.trains)
            replace(record, test=_score(job, loaded, job.test)).write(folder)


def _train(settings: TrainSettings) -> FitResult:
    """Train with `settings`, or resume the run in the same folder; `seconds` is the sum over all training phases."""
    run = RunFolder(Path(settings.out or ""))
    result = read_result(run.path) if run.finished else train(settings, resume=run.unfinished)
    selection_seconds = result.selection.fit.seconds if result.selection else 0.0
    return replace(result.fit, seconds=result.fit.seconds + selection_seconds)


def _load_model(settings: TrainSettings, trained: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model that `settings` trained, or their base with a head that fits the rows; and its tokenizer."""
    import torch

    from actshift.tuner.loading import load_any_adapter

    full = trained and settings.method == "full"
    head = read_result(Path(str(settings.out))).head if trained else read_inputs(settings).head
    source = settings.out if full else settings.model
    # All methods are scored at the same precision, so a fully fine-tuned model needs no more memory than its base.
    # A CPU decodes in float32, because products of few rows are slower in bfloat16, even with instructions for it.
    precision = settings.precision if torch.cuda.is_available() else "fp32"
    revision, code = None if full else settings.revision, settings.trust_remote_code
    scored = TrainSettings(model=source, revision=revision, precision=precision, trust_remote_code=code)
    model, tokenizer = load_base(scored, head)
    return load_any_adapter(model, str(settings.out)).eval() if trained and not full else model, tokenizer


def _score(job: CellJob, loaded: tuple[Any, PreTrainedTokenizerBase], path: str) -> Score:
    from actshift.data import LABELLED, LANGUAGE, load_rows
    from actshift.evaluation import evaluate
    from actshift.tasks import get_scorer

    scorer = get_scorer(job.scorer) if job.scorer else None
    rows = load_rows(path, kinds=(*LABELLED, *LANGUAGE))
    report = evaluate(*loaded, rows, job.max_new_tokens, job.eval_batch_size, scorer=scorer)
    outcomes = _digits(row.correct for row in report.predictions)
    has_choices = report.choice_accuracy is not None
    choices = _digits(row.choice_correct for row in report.predictions) if has_choices else None
    return Score(report.correct, report.total, report.seconds, outcomes, choices)


def _digits(outcomes: Iterable[bool | None]) -> str:
    return "".join("1" if outcome else "0" for outcome in outcomes)
