"""The work of one cell: train it, score it, and write its record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.compare.cell import Record, Score
from actshift.training import FitResult, TrainSettings, train
from actshift.training.build import load_base
from actshift.training.data import read_inputs
from actshift.training.result import read_result
from actshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CellJob:
    """Everything that a process needs to know to run one cell.

    Args:
        folder: the cell's folder, which receives the record and the log.
        settings: settings of the training; the base model only uses them for loading.
        trains: False for the base model.
        validation: path of the validation rows.
        test: path of the test rows, or None while the learning rate is not chosen.
        scorer: name of the scorer, or None for exact match.
        made_with: the settings to store in the record, so that a later call can compare them.
        one_thread: True if several cells run at the same time.
    """

    folder: str
    settings: TrainSettings
    trains: bool
    validation: str
    test: str | None
    max_new_tokens: int
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
        if record is None:
            fit = train_cell(settings) if job.trains else None
            loaded = load_cell_model(settings, job.trains)
            parameters = fit.parameters if fit else loaded[0].num_parameters()
            record = Record(job.made_with, parameters, fit, _score(job, loaded, job.validation))
            record.write(folder)
        if job.test and record.test is None:
            loaded = loaded or load_cell_model(settings, job.trains)
            replace(record, test=_score(job, loaded, job.test)).write(folder)


def train_cell(settings: TrainSettings) -> FitResult:
    """Train with `settings`, or resume the run in the same folder; `seconds` is the sum over all training phases."""
    run = RunFolder(Path(settings.out or ""))
    result = read_result(run.path) if run.finished else train(settings, resume=run.unfinished)
    selection_seconds = result.selection.fit.seconds if result.selection else 0.0
    return replace(result.fit, seconds=result.fit.seconds + selection_seconds)


def load_cell_model(settings: TrainSettings, trained: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model that `settings` trained, or the base model that they start from, with its tokenizer.

    All methods are scored at the same precision, so a fully fine-tuned model needs no more memory than its base. An
    untrained model gets a new head that fits the rows.
    """
    from actshift.tuner.loading import load_any_adapter

    full = trained and settings.method == "full"
    head = read_result(Path(str(settings.out))).head if trained else read_inputs(settings).head
    source = settings.out if full else settings.model
    model, tokenizer = load_base(
        TrainSettings(model=source, precision=settings.precision, trust_remote_code=settings.trust_remote_code), head
    )
    if trained and not full:
        model = load_any_adapter(model, str(settings.out)).eval()
    return model, tokenizer


def _score(job: CellJob, loaded: tuple[Any, PreTrainedTokenizerBase], rows: str) -> Score:
    from actshift.data import LABELLED, LANGUAGE, load_rows
    from actshift.evaluation import evaluate
    from actshift.tasks import get_scorer

    scorer = get_scorer(job.scorer) if job.scorer else None
    split = load_rows(rows, kinds=(*LABELLED, *LANGUAGE))
    report = evaluate(*loaded, split, job.max_new_tokens, job.eval_batch_size, scorer=scorer)
    return Score(report.correct, report.total, report.seconds)
