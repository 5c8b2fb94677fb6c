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
from actshift.cli.main import app, main
from tests.cli.conftest import Run

VERBS = (
    *("demo", "train", "eval", "compare", "generate", "chat", "inspect"),
    *("locate", "report", "equivalence", "extract", "export"),
)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = "torch transformers peft datasets trl numpy".split()
    code = (
        "import sys; from actshift.cli.main import main; main(['--help']); "
        f"sys.exit(' '.join(name for name in {heavy} if name in sys.modules))"
    )
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert (run.stderr.strip(), run.returncode) == ("", 1)  # sys.exit with a text, which is empty
    assert all(verb in run.stdout for verb in VERBS)
    assert seconds < 2  # 0.2 s on a free core


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, actshift: Run) -> None:
    code, out, err = actshift(verb, "--help")
    assert (code, err) == (0, "")
    assert f"actshift {verb}" in out


def test_version_and_bare_call(actshift: Run) -> None:
    assert actshift("--version") == (0, f"actshift {__version__}\n", "")
    code, out, err = actshift()
    assert (code, err) == (0, "")
    assert "inspect" in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["evall"], ["'evall'. Did you mean 'eval'? See `actshift --help`."]),
        (["--versoin"], ["--versoin. Did you mean '--version'? See `actshift --help`."]),
        (["eval", "--dta", "x"], ["--dta. Did you mean '--data'? See `actshift eval --help`."]),
        (["extract"], ["Missing option '--finetuned'. See `actshift extract --help`."]),
        (["inspect"], ["Missing argument 'ADAPTER_OR_MODEL'. See `actshift inspect --help`."]),
        (["inspect", "a", "b"], ["unexpected extra argument", "b", "See `actshift inspect --help`."]),
        (["generate", "--strength", "high"], ["'--strength'", "valid", "See `actshift generate --help`."]),
        (["eval", "--data", "x", "--limit", "0"], ["'--limit'", "1", "See `actshift eval --help`."]),
    ],
)
def test_a_mistyped_command_line_is_told_in_one_line(argv: list[str], told: list[str], refused) -> None:
    line = refused(*argv)
    assert all(part in line for part in told), line


def _caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ActshiftError("a bad\n   rank"), "a bad rank"),
        (KeyboardInterrupt(), "interrupted."),
        (typer.Abort(), "interrupted."),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "there is no file a.txt."),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), "no permission for /root/a."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "b"), "a folder stands where a file is wanted: b."),
        (OSError(errno.ENOSPC, "No space left on device", "c"), "no space left on the device c; free some, or write"),
        (_caused_by(RuntimeError("x"), OSError(errno.ENOSPC, "No space left on device")), "no space left on the dev"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files."),
        (MemoryError(), "out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "the GPU is out of memory"),
        (ZeroDivisionError("division\nby zero"), "unexpected ZeroDivisionError: division by zero (ACTSHIFT_DEBUG=1"),
    ],
)
def test_every_failure_is_one_line_and_exit_code_2(
    error: BaseException, expected: str, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("actshift.analysis.describe", fail)
    assert refused("inspect", "x").startswith(f"actshift: {expected}")
    assert explain(error).replace("\n   ", " ").replace("\n", " ").startswith(expected)


def test_the_traceback_is_shown_on_request(actshift: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTSHIFT_DEBUG", "1")
    code, _, err = actshift("inspect", "no/such/folder")
    assert code == 2
    assert err.startswith("Traceback")
    assert "ActshiftError" in err


def test_our_warnings_are_one_line_and_those_of_others_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, actshift: Run
) -> None:
    def warn(*_: object) -> None:
        for module in ("actshift.data", "transformers.utils"):
            warnings.warn_explicit(f"from {module}", UserWarning, "file.py", 1, module=module)
        raise ActshiftError("end")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr("actshift.analysis.describe", warn)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back what main replaces
        assert actshift("inspect", "x").err == "actshift: warning: from actshift.data\nactshift: end\n"


def _actshift(*argv: str, **options) -> subprocess.Popen:
    code = "import sys; from actshift.cli.main import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *argv], text=True, **options)


def test_ctrl_c_ends_a_run_with_one_line(tmp_path) -> None:
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    process = _actshift("generate", "--model", "x", "--prompts", str(pipe), stderr=subprocess.PIPE)
    with pipe.open("w"):  # returns once the other side reads, and so waits for us
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (2, "actshift: interrupted.\n")


def test_a_reader_that_leaves_is_no_failure_to_talk_about() -> None:
    read, write = os.pipe()
    os.close(read)
    process = _actshift("--help", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert process.communicate(timeout=30)[1] == ""


def test_the_entry_point_is_installed() -> None:
    from importlib.metadata import entry_points

    [script] = entry_points(group="console_scripts", name="actshift")
    assert script.load() is main
    assert app.info.name == "actshift"
