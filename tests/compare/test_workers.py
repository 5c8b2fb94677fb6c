"""Processes that do jobs, here small ones: a stand-in for run_job that reads from the job what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actshift.compare import workers
from actshift.compare.workers import LOG, CellJob, Workers

SERVE = """
import sys, os, time; sys.path[:] = {path!r}
from actshift.compare import worker
def run_job(job):
    print("at work")
    exec(job.settings["code"])
worker.run_job = run_job
worker.serve()
"""


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SERVE", SERVE)


def job(folder: Path, code: str) -> CellJob:
    return CellJob(str(folder), {"code": code}, True, "", None, 1, None, 1, {}, False)


@pytest.mark.slow
def test_jobs_are_done_told_and_logged_and_one_that_kills_its_process_stops_no_other(tmp_path: Path) -> None:
    warn = "import warnings; warnings.warn_explicit('too long', UserWarning, worker.__file__, 1)"
    with Workers(2) as pool, pytest.warns(UserWarning, match="too long"):
        outcomes = [
            pool.submit(job(tmp_path / str(number), code)).result()
            for number, code in enumerate(
                [warn, "1 / 0", "from actshift import ActshiftError; raise ActshiftError('no\\nroom')", "os._exit(3)",
                 "os.kill(os.getpid(), 9)", "pass"]
            )
        ]  # fmt: skip
        processes = [process.running.pid for process in pool.all if process.running]
    assert outcomes == [
        None,
        "ZeroDivisionError: division by zero",
        "no room",
        "its process ended with exit code 3",
        "its process ended by signal 9",
        None,
    ]
    assert (tmp_path / "0" / LOG).read_text().startswith("at work\n")
    assert "Traceback" in (tmp_path / "1" / LOG).read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


@pytest.mark.slow
def test_leaving_ends_what_is_under_way_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    with Workers(1) as pool:
        future = pool.submit(job(tmp_path, "time.sleep(600)"))
        while not (tmp_path / LOG).exists():
            time.sleep(0.05)
    assert "ended by signal 9" in str(future.result())
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_comparison_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    code = f"""
import sys
from actshift.compare import workers
from tests.compare.test_workers import SERVE, job
from pathlib import Path
workers.SERVE = SERVE
code = "open(job.folder + '/pid', 'w').write(str(os.getpid())); time.sleep(600)"
with workers.Workers(1) as pool:
    pool.submit(job(Path({str(tmp_path)!r}), code)).result()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert parent.poll() is None, "the comparison ended by itself"
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if not Path(f"/proc/{pid.read_text()}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the process lives on")
