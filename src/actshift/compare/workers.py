"""Run cells in worker processes; the only module that knows how a job reaches another process."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from actshift.compare.job import CellJob, run_job
from actshift.errors import ActshiftError, first_line

LOG = "log.txt"


class Engine(Protocol):
    """Runs jobs; another implementation can replace `WorkerPool`, for example one that uses several machines."""

    def submit(self, job: CellJob) -> Future[str | None]:
        """Start a job; the result is None, or the reason of a failure in one line."""
        ...


class WorkerPool:
    """An engine with `count` spawned interpreters, each of which runs one job at a time.

    An executor ends all of its processes when one dies, so each interpreter has a separate executor. Leaving the
    context manager kills running jobs and leaves no process behind.

    Args:
        count: number of interpreters; submit no more unfinished jobs than that.
        run: function that does a job; tests replace it.
    """

    def __init__(self, count: int, run: Callable[[CellJob], None] = run_job) -> None:
        self.workers = [_Worker(run) for _ in range(count)]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.close()

    def submit(self, job: CellJob) -> Future[str | None]:
        """Start a job in an idle interpreter; the result is None, or the reason of a failure in one line."""
        return min(self.workers, key=lambda worker: worker.busy).submit(job)


class _Answer(NamedTuple):
    error: str | None
    warnings: list[str]


class _Worker:
    """One spawned interpreter, which is replaced when it has died."""

    def __init__(self, run: Callable[[CellJob], None]) -> None:
        self.run = run
        self.busy = False
        self.executor: ProcessPoolExecutor | None = None
        self.process: BaseProcess | None = None

    def submit(self, job: CellJob) -> Future[str | None]:
        outcome: Future[str | None] = Future()
        outcome.set_running_or_notify_cancel()
        self.busy = True

        def finish(answer: Future[_Answer]) -> None:
            try:
                error = self._collect(answer)
            except Warning as warning:  # the caller turns warnings into errors
                outcome.set_exception(warning)
            else:
                outcome.set_result(error)

        self._start(job).add_done_callback(finish)
        return outcome

    def kill(self) -> None:
        if self.process:
            self.process.kill()  # files are written atomically, so nothing is left half done

    def close(self) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def _start(self, job: CellJob) -> Future[_Answer]:
        with _clean_start():
            if self.executor is None or self.process is None or not self.process.is_alive():
                context = get_context("spawn")
                self.executor = ProcessPoolExecutor(1, mp_context=context, initializer=_exit_with_parent)
            answer = self.executor.submit(_do, self.run, job)
            # Executors do not expose exit codes, which the error of a dead worker needs.
            [self.process] = self.executor._processes.values()  # pyright: ignore[reportPrivateUsage]
        return answer

    def _collect(self, answer: Future[_Answer]) -> str | None:
        self.busy = False
        error = answer.exception()
        if isinstance(error, BrokenProcessPool):
            code = self._end()
            return f"its process ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
        if error:
            return _one_line(error)
        for text in answer.result().warnings:
            warnings.warn(text, stacklevel=1)  # one fixed location shows each text only once
        return answer.result().error

    def _end(self) -> int:
        """Wait until the process has ended, and return its exit code; negative for a signal."""
        assert self.process
        self.process.kill()  # without effect on a process that died, which is why the executor is broken
        self.process.join()
        while (code := self.process.exitcode) is None:
            time.sleep(0.01)  # another thread has reaped the process and is about to store its code
        return code


@contextmanager
def _clean_start() -> Generator[None]:
    """Protect a new interpreter from its surroundings.

    * Ctrl-C reaches only this process, which then kills the workers.
    * The caller's script is not imported again, so it needs no `if __name__ == "__main__"`.
    * Modules in the current folder cannot shadow the standard library (Python 3.11 and later).
    """
    main, safe_path = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if safe_path is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe_path
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
    warned: list[str] = []
    try:
        with _collect_own_warnings(warned):
            run(job)
        return _Answer(None, warned)
    except Exception as error:
        traceback.print_exc()
        return _Answer(_one_line(error), warned)
    finally:
        gc.collect()  # a trainer and its model reference each other
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def _collect_own_warnings(warned: list[str]) -> Generator[None]:
    """Add the warnings of this package to `warned`, because the user does not read the log."""
    show, package = warnings.showwarning, str(Path(__file__).parents[1])

    def note(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
        show(message, category, filename, *more)
        if filename.startswith(package):
            warned.append(str(message))

    warnings.showwarning = note
    try:
        yield
    finally:
        warnings.showwarning = show


def _one_line(error: BaseException) -> str:
    if isinstance(error, ActshiftError):
        return " ".join(str(error).split())
    line = first_line(error) if isinstance(error, Exception) else str(error)
    return f"{type(error).__name__}: {line[:200]}"
