"""Report a failure as one line on stderr and an exit code."""

import errno
import os
import sys
import traceback
import warnings

import typer

from actshift.errors import ActshiftError, printable

_OS_ERRORS = {
    errno.ENOENT: "There is no file",
    errno.EACCES: "Permission denied for",
    errno.EPERM: "Permission denied for",
    errno.EROFS: "The file system is read-only:",
    errno.EISDIR: "A file is expected, but this is a folder:",
    errno.ENOTDIR: "A folder is expected, but this is a file:",
    errno.EEXIST: "There is already a file",
}


def report(error: BaseException) -> int:
    """Print one line about the error to stderr, or its traceback if ACTSHIFT_DEBUG is set; return the exit code, 2."""
    if os.environ.get("ACTSHIFT_DEBUG"):
        traceback.print_exception(error)
    elif isinstance(error, BrokenPipeError):  # the reader closed the pipe, as in `actshift inspect x | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        line = ActshiftError(" ".join(explain(error).split()))  # escapes control characters, and is of limited length
        print(f"actshift: {line}", file=sys.stderr)
    return 2


def explain(error: BaseException) -> str:
    """Return the message that a user sees for an error.

    >>> explain(KeyboardInterrupt())
    'Interrupted.'
    """
    file = f" {name}" if (name := getattr(error, "filename", None)) else ""
    if isinstance(error, ActshiftError):
        return str(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "Interrupted."
    if hasattr(error, "format_message"):  # a usage error of click, whose class typer does not export
        return _explain_usage(error)
    if _disk_is_full(error):
        return f"No space is left on the device{file}. Free some, or write elsewhere."
    if isinstance(error, OSError) and error.errno:
        return f"{_OS_ERRORS.get(error.errno, os.strerror(error.errno))}{file}."
    if type(error).__name__ == "OutOfMemoryError":  # matched by name, because importing torch is slow
        return "The GPU is out of memory. Use a smaller batch, shorter texts or a smaller model."
    if isinstance(error, MemoryError):
        return "Out of memory. Use a smaller batch or a smaller model."
    return f"Unexpected {type(error).__name__}: {str(error)[:300]} (ACTSHIFT_DEBUG=1 shows the traceback)"


def hide_library_warnings() -> None:
    """Hide the warnings of other libraries, which concern our calls and not the user's, and print ours in one line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl sends usage statistics otherwise
    warnings.filterwarnings("ignore", module=r"(?!actshift)")
    warnings.showwarning = lambda message, *_: print(f"actshift: warning: {printable(str(message))}", file=sys.stderr)


def _explain_usage(error: BaseException) -> str:
    sentence = error.format_message()  # type: ignore[attr-defined]
    if near := getattr(error, "possibilities", None):  # sorted by similarity; click's own message sorts them by name
        sentence = f"{error.message}. Did you mean {near[0]!r}?"  # type: ignore[attr-defined]
    path = getattr(getattr(error, "ctx", None), "command_path", "actshift")
    return f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'} See `{path} --help`."


def _disk_is_full(error: BaseException) -> bool:
    cause = error.__cause__ or error.__context__
    return "No space left on device" in str(error) or (cause is not None and _disk_is_full(cause))
