"""A process that does cells: it reads a job a line from stdin, and answers each with a line on stdout.

It ends with its input, so that none is left behind by a comparison that was killed. What it prints on the way goes
to log.txt in the cell's folder.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, first_line

LOG = "log.txt"


@dataclass(frozen=True)
class Job:
    """All that a process must know to do one cell: `trains` is False for the base, `test` None before the choice."""

    folder: str
    settings: dict[str, Any]
    trains: bool
    validation: str
    test: str | None
    max_new_tokens: int
    scorer: str | None
    eval_batch_size: int
    made_with: dict[str, Any]
    one_thread: bool


def run_job(job: Job) -> None:
    """Train and score what the cell's record does not have yet; each score is recorded as soon as it is there."""
    from filelock import FileLock

    from actshift.compare.cell import Record
    from actshift.compare.trained import cell_model, train_cell
    from actshift.training import TrainSettings

    folder, settings = Path(job.folder), TrainSettings.from_mapping(job.settings)
    with FileLock(folder / ".lock"):  # a process of a comparison just killed may need a moment to end
        record, loaded = Record.read(folder), None
        if record is None:
            fit = train_cell(settings) if job.trains else None
            loaded = cell_model(settings, job.trains)
            parameters = fit.parameters if fit else loaded[0].num_parameters()
            record = Record(job.made_with, parameters, fit, _score(job, loaded, job.validation))
            record.write(folder)
        if job.test and record.test is None:
            record = replace(record, test=_score(job, loaded or cell_model(settings, job.trains), job.test))
            record.write(folder)


def serve() -> None:
    """Do the jobs that come in until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        os.makedirs(job.folder, exist_ok=True)
        log = os.open(Path(job.folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        warned: list[str] = []
        print(json.dumps({"error": _outcome(job, warned), "warnings": warned}), file=answers, flush=True)


def _read(jobs: queue.SimpleQueue[Job]) -> None:
    for line in sys.stdin:
        jobs.put(Job(**json.loads(line)))
    os._exit(0)  # also in the middle of a cell: what is written is whole, and goes on from there


def _outcome(job: Job, warned: list[str]) -> str | None:
    try:
        import torch

        if job.one_thread:
            torch.set_num_threads(1)
        with _ours_noted(warned):
            run_job(job)
        return None
    except Exception as error:
        traceback.print_exc()
        return " ".join(str(error).split()) if isinstance(error, ActshiftError) else _short(error)
    finally:
        gc.collect()  # a trainer and its model hold each other
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def _ours_noted(warned: list[str]) -> Iterator[None]:
    """Add to `warned` what this package warns of, which the user should see and not look for in a log."""
    show, home = warnings.showwarning, str(Path(__file__).parents[1])

    def note(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
        show(message, category, filename, *more)
        if filename.startswith(home):
            warned.append(str(message))

    warnings.showwarning = note
    try:
        yield
    finally:
        warnings.showwarning = show


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)[:200]}"


def _score(job: Job, loaded: tuple[Any, Any], rows: str) -> Any:
    from actshift.compare.cell import Score
    from actshift.data import LABELLED, LANGUAGE, load_rows
    from actshift.evaluation import evaluate
    from actshift.tasks import get_scorer

    scorer = get_scorer(job.scorer) if job.scorer else None
    split = load_rows(rows, kinds=(*LABELLED, *LANGUAGE))
    report = evaluate(*loaded, split, job.max_new_tokens, job.eval_batch_size, scorer=scorer)
    return Score(report.correct, report.total, report.seconds)


def to_line(job: Job) -> str:
    """Return what `serve` reads."""
    return json.dumps(asdict(job))
