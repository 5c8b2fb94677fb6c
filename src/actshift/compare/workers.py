"""Run cells in worker processes; the only module that knows how a job reaches another process."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from actshift.compare.cell import CellJob, run_job
from actshift.errors import ActshiftError, first_line

LOG = "log.txt"
PACKAGE = str(Path(__file__).parents[1])


class WorkerPool:
    """A pool of `count` spawned interpreters, each of which runs one job at a time.

    Submit at most `count` unfinished jobs. An executor ends all of its processes when one dies, so each interpreter
    has a separate executor. Leaving the context manager kills running jobs and leaves no process behind.
    """

    def __init__(self, count: int, run: Callable[[CellJob], None] = run_job) -> None:
        self.workers = [_Worker(run) for _ in range(count)]
        self.threads = ThreadPoolExecutor(count)  # each thread waits for the end of a job

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            if worker.process:
                worker.process.kill()  # files are written atomically, so nothing is left half done
        self.threads.shutdown()
        for worker in self.workers:
            if worker.executor:
                worker.executor.shutdown(cancel_futures=True)

    def submit(self, job: CellJob) -> Future[str | None]:
        """Start a job in an idle interpreter; the result is None, or the reason of a failure in one line."""
        worker = next(worker for worker in self.workers if worker.outcome is None or worker.outcome.done())
        worker.outcome = self.threads.submit(worker.wait, worker.start(job))
        return worker.outcome


_Answer = tuple[str | None, list[str]]  # the error of a job in one line, if any, and the warnings of this package


class _Worker:
    """One spawned interpreter, which is replaced when it has died."""

    def __init__(self, run: Callable[[CellJob], None]) -> None:
        self.run = run
        self.executor: ProcessPoolExecutor | None = None
        self.process: BaseProcess | None = None
        self.outcome: Future[str | None] | None = None

    def start(self, job: CellJob) -> Future[_Answer]:
        with _clean_start():
            if not (self.executor and self.process and self.process.is_alive()):
                self.executor = ProcessPoolExecutor(1, get_context("spawn"), _exit_with_parent)
            answer = self.executor.submit(_do, self.run, job)
            # Executors do not expose exit codes, which the error of a dead worker needs.
            [self.process] = self.executor._processes.values()  # pyright: ignore[reportPrivateUsage]
        return answer

    def wait(self, answer: Future[_Answer]) -> str | None:
        """Wait for the end of the job; return the reason of a failure, and repeat the warnings of the worker."""
        try:
            error, warned = answer.result()
        except BrokenProcessPool:
            assert self.executor and self.process
            self.executor.shutdown()  # waits until the process has ended and its exit code is known
            code = self.process.exitcode or 0
            return f"its process ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
        for text in warned:
            warnings.warn(text, stacklevel=1)  # one fixed location shows each text only once
        return error


@contextmanager
def _clean_start() -> Generator[None]:
    """Protect a new interpreter from its surroundings.

    * Ctrl-C reaches only this process, which then kills the workers.
    * The caller's script is not imported again, so it needs no `if __name__ == "__main__"`.
    * Modules in the current folder cannot shadow the standard library (Python 3.11 and later).
    """
    main, environment = sys.modules["__main__"], dict(os.environ)
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        del os.environ["PYTHONSAFEPATH"]
        os.environ.update(environment)
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _exit_with_parent() -> None:
    """Exit as soon as the parent process dies, also in the middle of a job."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(0)  # files are written atomically, and the next comparison resumes from them

    threading.Thread(target=watch, daemon=True).start()


def _do(run: Callable[[CellJob], None], job: CellJob) -> _Answer:
    """Run a job in a worker, with its output in the cell's log file."""
    os.makedirs(job.folder, exist_ok=True)
    log = os.open(Path(job.folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    error, warned, show = None, list[str](), warnings.showwarning

    def note(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
        show(message, category, filename, *more)
        if filename.startswith(PACKAGE):
            warned.append(str(message))

    warnings.showwarning = note
    try:
        run(job)
    except (Exception, SystemExit) as failure:
        traceback.print_exc()
        known = isinstance(failure, ActshiftError)
        error = " ".join(str(failure).split()) if known else f"{type(failure).__name__}: {first_line(failure)[:200]}"
    warnings.showwarning = show
    gc.collect()  # a trainer and its model reference each other
    sys.stdout.flush()
    sys.stderr.flush()
    return error, warned
