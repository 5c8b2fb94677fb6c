"""Worker processes, with a small stand-in for `run_job` that executes code from the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actshift.compare.job import CellJob
from actshift.compare.workers import LOG, WorkerPool
from actshift.training import TrainSettings

ROOT = Path(__file__).parents[2]


def execute(job: CellJob) -> None:
    """Run the code in a job; workers import it from this module."""
    print("at work")
    exec(job.made_with["code"])


def job(folder: Path, code: str) -> CellJob:
    return CellJob(str(folder), TrainSettings(), True, "", None, 1, None, 1, {"code": code}, False)


def wait_until_gone(pid: int) -> bool:
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_failing_jobs_are_reported_and_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    warn = "import warnings; from actshift.compare import workers; "
    warn += "warnings.warn_explicit('too long', UserWarning, workers.__file__, 1)"
    codes = [
        warn,
        "1 / 0",
        "from actshift import ActshiftError; raise ActshiftError('no\\nroom')",
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
        "sys.exit(4)",
        "pass",
    ]
    with WorkerPool(2, execute) as pool, pytest.warns(UserWarning, match="too long"):
        outcomes = [pool.submit(job(tmp_path / str(n), code)).result() for n, code in enumerate(codes)]
        processes = [worker.process.pid for worker in pool.workers if worker.process]
    assert outcomes == [
        None,
        "ZeroDivisionError: division by zero",
        "no room",
        "its process ended with exit code 3",
        "its process ended by signal 9",
        "SystemExit: 4",
        None,
    ]
    assert (tmp_path / "0" / LOG).read_text().startswith("at work\n")
    assert "Traceback" in (tmp_path / "1" / LOG).read_text()
    assert processes and not any(Path(f"/proc/{pid}").exists() for pid in processes)


@pytest.mark.slow
def test_a_dying_worker_does_not_disturb_the_jobs_of_others(tmp_path: Path) -> None:
    with WorkerPool(2, execute) as pool:
        waits = pool.submit(job(tmp_path / "waits", f"while not os.path.exists({str(tmp_path / 'go')!r}): pass"))
        dies = pool.submit(job(tmp_path / "dies", "os._exit(3)"))
        assert dies.result() == "its process ended with exit code 3"
        assert not waits.done()
        (tmp_path / "go").touch()
        assert waits.result() is None


@pytest.mark.slow
def test_leaving_the_pool_kills_running_jobs(tmp_path: Path) -> None:
    start = time.monotonic()
    with WorkerPool(1, execute) as pool:
        future = pool.submit(job(tmp_path, "time.sleep(600)"))
        while not (tmp_path / LOG).exists():
            time.sleep(0.05)
    assert "ended by signal 9" in str(future.result())
    assert time.monotonic() - start < 60


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_comparison(tmp_path: Path, end: signal.Signals) -> None:
    """Also covers a script without a main guard, started in a folder whose modules shadow the standard library."""
    script, pid, folder = tmp_path / "script.py", tmp_path / "cell" / "pid", tmp_path / "folder"
    folder.mkdir()
    if sys.version_info >= (3, 11):
        (folder / "queue.py").write_text("raise ImportError('shadowed')")
    script.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from actshift.compare.workers import WorkerPool
from tests.compare.test_workers import execute, job
code = "open(job.folder + '/pid', 'w').write(str(os.getpid())); time.sleep(600)"
with WorkerPool(1, execute) as pool:
    pool.submit(job(Path({str(pid.parent)!r}), code)).result()
""")
    parent = subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (pid.exists() and pid.read_text()):
        assert parent.poll() is None, f"the comparison ended by itself: {parent.communicate()}"
        time.sleep(0.05)
    if end == signal.SIGKILL:
        parent.kill()
    else:
        os.killpg(parent.pid, end)  # as a terminal does on Ctrl-C
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == -end
    assert wait_until_gone(int(pid.read_text()))
    assert errors.count("Traceback") == (end == signal.SIGINT), "only the parent is interrupted"
