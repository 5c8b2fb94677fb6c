"""The processes that do the cells, each led by a thread that waits for its answers."""

from __future__ import annotations

import gc
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actshift.compare.cell import Cell
from actshift.compare.protocol import PendingCell, SweepState
from actshift.errors import ActshiftError, first_line


def run_tasks(
    standing: SweepState,
    at_once: int,
    submit: Callable[[PendingCell], Future[str | None]],
    settle: Callable[[Cell, str | None], None],
    started: Callable[[Sequence[Cell]], None],
) -> None:
    """Submit the open tasks of `standing`, `at_once` at a time, and `settle` each with its error or None.

    `settle` must bring `standing` up to date, from which follows what is open next; `started` is told what is under
    way whenever that changes.
    """
    running: dict[Future[str | None], PendingCell] = {}
    while True:
        under_way = {task.cell for task in running.values()}
        for task in standing.open_tasks():
            if len(running) == at_once:
                break
            if task.cell not in under_way:
                running[submit(task)] = task
        if not running:
            return
        started([task.cell for task in running.values()])
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            settle(running.pop(future).cell, future.result())


LOG = "log.txt"


@dataclass(frozen=True)
class CellJob:
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


def run_job(job: CellJob) -> None:
    """Train and score what the cell's record does not have yet; each score is recorded as soon as it is there."""
    from filelock import FileLock

    from actshift.compare.cell import Record, cell_model, train_cell
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
    jobs: queue.SimpleQueue[CellJob] = queue.SimpleQueue()
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


def _read(jobs: queue.SimpleQueue[CellJob]) -> None:
    for line in sys.stdin:
        jobs.put(CellJob(**json.loads(line)))
    os._exit(0)  # also in the middle of a cell: what is written is whole, and goes on from there


def _outcome(job: CellJob, warned: list[str]) -> str | None:
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


def _score(job: CellJob, loaded: tuple[Any, Any], rows: str) -> Any:
    from actshift.compare.cell import Score
    from actshift.data import LABELLED, LANGUAGE, load_rows
    from actshift.evaluation import evaluate
    from actshift.tasks import get_scorer

    scorer = get_scorer(job.scorer) if job.scorer else None
    split = load_rows(rows, kinds=(*LABELLED, *LANGUAGE))
    report = evaluate(*loaded, split, job.max_new_tokens, job.eval_batch_size, scorer=scorer)
    return Score(report.correct, report.total, report.seconds)


def to_line(job: CellJob) -> str:
    """Return what `serve` reads."""
    return json.dumps(asdict(job))


SERVE = "import sys; sys.path[:] = {path!r}; from actshift.compare.workers import serve; serve()"
"""A new interpreter, not a fork, finds modules where this one does, whatever lies in the current folder."""


class Workers:
    """Does up to `count` jobs at a time; as a context manager it leaves no process behind, however it is left."""

    def __init__(self, count: int) -> None:
        self.executor = ThreadPoolExecutor(count)
        self.idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self.all = [_Process() for _ in range(count)]
        for process in self.all:
            self.idle.put(process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.all:
            process.kill()
        self.executor.shutdown(cancel_futures=True)
        for process in self.all:
            process.close()

    def submit(self, job: CellJob) -> Future[str | None]:
        """Have a job done; the result is None, or in one line why it failed."""
        return self.executor.submit(self._do, job)

    def _do(self, job: CellJob) -> str | None:
        process = self.idle.get()
        try:
            return process.do(job)
        finally:
            self.idle.put(process)


class _Process:
    """One interpreter, started when there is work, and anew where the last one died."""

    def __init__(self) -> None:
        self.running: subprocess.Popen[str] | None = None
        self.killed = False

    def do(self, job: CellJob) -> str | None:
        process = self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(to_line(job) + "\n")
            process.stdin.flush()
            if line := process.stdout.readline():
                answer = json.loads(line)
                for text in answer["warnings"]:
                    warnings.warn(text, stacklevel=1)  # from one place, so that each is shown once
                return answer["error"]
        except BrokenPipeError:
            pass
        code = process.wait()
        return f"its process ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"

    def kill(self) -> None:
        self.killed = True
        if self.running and self.running.poll() is None:
            self.running.kill()  # all that is written is whole

    def close(self) -> None:
        if self.running:
            self.running.wait()
            for pipe in (self.running.stdin, self.running.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]  # both were asked for

    def _started(self) -> subprocess.Popen[str]:
        if self.running is None or self.running.poll() is not None:
            self.running = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
            )
        if self.killed:  # just now, by another thread
            self.running.kill()
        return self.running
