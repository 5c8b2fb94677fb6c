"""The one place where what goes wrong becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterator

import typer

from actshift.errors import ActshiftError

FAILURE = 2


def report(error: BaseException) -> int:
    """Say in one line on stderr what went wrong, or all of it under ACTSHIFT_DEBUG; return the exit code."""
    if os.environ.get("ACTSHIFT_DEBUG"):
        traceback.print_exception(error)
    elif isinstance(error, BrokenPipeError):  # whoever read us has seen enough, as in `actshift inspect x | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        print(f"actshift: {' '.join(explain(error).split())}", file=sys.stderr)
    return FAILURE


def explain(error: BaseException) -> str:
    """Return the sentence that tells a user what went wrong."""
    if isinstance(error, ActshiftError):
        return str(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted."
    if hasattr(error, "format_message"):  # click's usage errors, which typer brings under a name of its own
        return _usage(error)
    if any("No space left on device" in str(cause) for cause in _causes(error)):
        return f"no space left on the device{_named(error)}; free some, or write elsewhere."
    if isinstance(error, OSError) and error.errno:
        return _OS_ERRORS.get(error.errno, os.strerror(error.errno)) + _named(error) + "."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which must not be imported for this
        return "the GPU is out of memory; use a smaller batch, shorter texts or a smaller model."
    if isinstance(error, MemoryError):
        return "out of memory; use a smaller batch or a smaller model."
    return f"unexpected {type(error).__name__}: {str(error)[:300]} (ACTSHIFT_DEBUG=1 shows the traceback)"


def show_warning(message: Warning | str, *_: object) -> None:
    """Print one of our own warnings as one line, in place of `warnings.showwarning`."""
    print(f"actshift: warning: {message}", file=sys.stderr)


def quiet_libraries() -> None:
    """Keep other libraries' advice off the screen: it is about calls that we make, not the user."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl reports its use otherwise
    warnings.filterwarnings("ignore", module=r"(?!actshift)")
    warnings.showwarning = show_warning


_OS_ERRORS = {
    errno.ENOENT: "there is no file",
    errno.EACCES: "no permission for",
    errno.EPERM: "no permission for",
    errno.EROFS: "a read-only file system holds",
    errno.EISDIR: "a folder stands where a file is wanted:",
    errno.ENOTDIR: "a file stands where a folder is wanted:",
    errno.EEXIST: "there is already a file",
}


def _named(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" {name}" if name else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _usage(error: BaseException) -> str:
    sentence = error.format_message()  # type: ignore[attr-defined]
    if near := getattr(error, "possibilities", None):  # click lists them by the alphabet
        sentence = f"{error.message}. Did you mean {near[0]!r}?"  # type: ignore[attr-defined]
    path = getattr(getattr(error, "ctx", None), "command_path", "actshift")
    return f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'} See `{path} --help`."
