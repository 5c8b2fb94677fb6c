"""The processes that do the cells, each led by a thread that waits for its answers."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from actshift.compare.worker import Job, to_line

SERVE = "import sys; sys.path[:] = {path!r}; from actshift.compare.worker import serve; serve()"
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

    def submit(self, job: Job) -> Future[str | None]:
        """Have a job done; the result is None, or in one line why it failed."""
        return self.executor.submit(self._do, job)

    def _do(self, job: Job) -> str | None:
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

    def do(self, job: Job) -> str | None:
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
