"""Failures and warnings are one line on stderr."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import typer

from actshift import ActshiftError, __version__
from actshift.cli.errors import explain
from tests.cli.conftest import Run, start_process


def _caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ActshiftError("A bad\n   rank"), "A bad rank"),
        (KeyboardInterrupt(), "Interrupted."),
        (typer.Abort(), "Interrupted."),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "There is no file a.txt."),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), "Permission denied for /root/a."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "b"), "A file is expected, but this is a folder: b."),
        (OSError(errno.ENOSPC, "No space left on device", "c"), "No space is left on the device c. Free some, or"),
        (_caused_by(RuntimeError("x"), OSError(errno.ENOSPC, "No space left on device")), "No space is left on the"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files."),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "d"), "No space is left on the device d."),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space is left"),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), "The file system is read-only."),
        (MemoryError(), "Out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "The GPU is out of memory"),
        (ZeroDivisionError("division\nby zero"), "Unexpected ZeroDivisionError: division by zero (ACTSHIFT_DEBUG=1"),
    ],
)
def test_every_failure_is_one_line_and_exit_code_2(
    error: BaseException, expected: str, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("actshift.analysis.describe", fail)
    assert refused("inspect", "x").startswith(f"actshift: {expected}")
    assert " ".join(explain(error).split()).startswith(expected)


def test_the_traceback_is_shown_if_requested(actshift: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTSHIFT_DEBUG", "1")
    code, _, err = actshift("inspect", "no/such/folder")
    assert code == 2
    assert err.startswith("Traceback")
    assert "ActshiftError" in err


def test_our_warnings_are_one_line_and_those_of_other_libraries_are_hidden(
    monkeypatch: pytest.MonkeyPatch, actshift: Run
) -> None:
    def warn(*_: object) -> None:
        for module in ("actshift.data", "transformers.utils"):
            warnings.warn_explicit(f"from {module}", UserWarning, "file.py", 1, module=module)
        raise ActshiftError("End")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr("actshift.analysis.describe", warn)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # restores what main replaces
        assert actshift("inspect", "x").err == "actshift: warning: from actshift.data\nactshift: End\n"


def test_ctrl_c_ends_a_run_with_one_line(tmp_path) -> None:
    pipe = tmp_path / "prompts"
    os.mkfifo(pipe)
    process = start_process("generate", "--model", "x", "--prompts", str(pipe))
    with pipe.open("w"):  # returns when the process opens the other end, which then waits for us
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (2, "actshift: Interrupted.\n")


@pytest.mark.slow
def test_a_second_ctrl_c_shows_no_traceback(tmp_path) -> None:
    pipe = tmp_path / "prompts"
    os.mkfifo(pipe)
    for pause in (0, 0.001, 0.01, 0.05):
        process = start_process("generate", "--model", "x", "--prompts", str(pipe))
        with pipe.open("w"):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err) in [(2, "actshift: Interrupted.\n"), *((-2, line) for line in ("", err[:23]))]


FULL = "actshift: No space is left on the device. Free some, or write elsewhere.\n"


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("{} --help | true; exit ${{PIPESTATUS[0]}}", 1, "", ""),
        ("{} --help >&-", 0, "", ""),
        ("{} --version 2>&-", 0, f"actshift {__version__}\n", ""),
        ("{} evall >&- 2>&- <&-", 2, "", ""),
        ("{} evall 2> /dev/full", 2, "", ""),
        ("{} --version > /dev/full", 2, "", FULL),
    ],
)
def test_closed_and_full_streams_are_one_line_or_silence(command: str, code: int, out: str, err: str) -> None:
    start = f"{sys.executable} -u -c 'import sys; from actshift.cli.main import main; sys.exit(main())'"
    ended = subprocess.run(["bash", "-c", command.format(start)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, out, err)


def test_a_file_that_is_opened_does_not_get_the_number_of_a_closed_stream(tmp_path) -> None:
    code = "import os; from actshift.cli.errors import open_closed_streams as run; run(); print(os.open('.', 0) > 2)"
    command = f'{sys.executable} -c "{code}" <&- 2>&-'
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == "True\n"
