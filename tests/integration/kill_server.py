"""Run command lines in forks of one warm process, and kill them at some moment. Run by `test_killed.py`.

Each line of stdin is a request: the words of a command, and the moment of SIGKILL: a float is a time in seconds, an
integer the number of a change to files, and null is never. The answer is one line: the exit code (-9 if it was killed),
the seconds that the command took, the number of changes, and what it printed to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.link", "os.truncate")


def run(words: Sequence[str], die_at: int | None, counter: int) -> int:
    """Run a command in this process, and die before change number `die_at`; write a dot for each change."""
    from actshift.cli.main import main

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            os.write(counter, b".")
            if os.fstat(counter).st_size == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    return main(list(words))


def answer(words: Sequence[str], moment: float | None) -> tuple[int, float, int, str]:
    """Run a command in a child process, and kill it at the moment."""
    with tempfile.TemporaryFile("w+") as stderr, tempfile.TemporaryFile("wb", buffering=0) as counter:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(stderr.fileno(), 2)
            code = run(words, moment if isinstance(moment, int) else None, counter.fileno())
            sys.stderr.flush()
            os._exit(code)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            time.sleep(0.0005)
            if isinstance(moment, float) and time.monotonic() - start > moment:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
        stderr.seek(0)
        changes = os.fstat(counter.fileno()).st_size
        return os.waitstatus_to_exitcode(ended[1]), time.monotonic() - start, changes, stderr.read()


class OneProcessPool:
    """Stands for the pool of a comparison, whose new interpreters take seconds to start, and runs jobs in place."""

    def __init__(self, count: int) -> None:
        pass

    def __enter__(self) -> OneProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, job: Any) -> Future[str | None]:
        from actshift.compare.cell import run_job

        os.makedirs(job.folder, exist_ok=True)
        run_job(job)
        outcome: Future[str | None] = Future()
        outcome.set_result(None)
        return outcome


def serve() -> None:
    """Import everything that commands need, and answer requests until stdin is closed."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401
    import torch
    import trl.trainer.sft_trainer  # noqa: F401

    import actshift.analysis.extract as analysis
    import actshift.compare.compare as comparison
    import actshift.demo.run as demo
    from actshift.cli.main import VERBS, load_verb
    from actshift.demo import load_base
    from actshift.training import trainer  # noqa: F401

    torch.set_num_threads(1)
    comparison.WorkerPool = OneProcessPool  # type: ignore[misc]
    analysis.extract = partial(analysis.extract, nonlinear_steps=0, ranks=(1, 2))  # type: ignore[assignment]
    demo.TEST_ROWS, demo.BATCH = 20, 4
    for verb in VERBS:
        load_verb(verb)
    load_base()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
