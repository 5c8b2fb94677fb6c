"""Report a failure as one line on stderr and an exit code."""

import errno
import os
import re
import sys
import traceback
import warnings
from contextlib import suppress

import typer

from actshift.errors import ActshiftError, printable

_NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed")  # in errors of torch
_OS_ERRORS = {
    errno.ENOENT: "There is no file",
    errno.EACCES: "Permission denied for",
    errno.EPERM: "Permission denied for",
    errno.EROFS: "The file system is read-only:",
    errno.EISDIR: "A file is expected, but this is a folder:",
    errno.ENOTDIR: "A folder is expected, but this is a file:",
    errno.EEXIST: "There is already a file",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or the largest file that a process may write


def report(error: BaseException) -> int:
    """Print one line about the error to stderr, or its traceback if ACTSHIFT_DEBUG is set; return the exit code."""
    if os.environ.get("ACTSHIFT_DEBUG"):
        traceback.print_exception(error)
        return 2
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as in `actshift inspect x | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    line = ActshiftError(" ".join(explain(error).split()))  # escapes control characters, and is of limited length
    with suppress(OSError):  # stderr may be closed or full, too
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
    if number := _system_error(error):
        if number in _FULL:
            return f"No space is left on the device{file}. Free some, or write elsewhere."
        return f"{_OS_ERRORS.get(number, os.strerror(number))}{file}".rstrip(":") + "."
    if type(error).__name__ == "OutOfMemoryError":  # matched by name, because importing torch is slow
        return "The GPU is out of memory. Use a smaller batch, shorter texts or a smaller model."
    if isinstance(error, MemoryError) or any(phrase in str(error) for phrase in _NO_MEMORY):
        return "Out of memory. Use a smaller batch or a smaller model."
    return f"Unexpected {type(error).__name__}: {str(error)[:300]} (ACTSHIFT_DEBUG=1 shows the traceback)"


def open_closed_streams() -> None:
    """Open /dev/null in place of closed standard streams. Otherwise the next files would get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(number, "w" if number else "r", closefd=False)  # noqa: SIM115  open until the process ends
        for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr))
    )


def hide_library_warnings() -> None:
    """Hide the warnings of other libraries, which concern our calls and not the user's, and print ours in one line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl sends usage statistics otherwise
    warnings.filterwarnings("ignore", module=r"(?!actshift)")
    warnings.showwarning = lambda message, *_: print(f"actshift: warning: {printable(str(message))}", file=sys.stderr)


def _explain_usage(error: BaseException) -> str:
    sentence = error.format_message()  # type: ignore[attr-defined]
    sentence = sentence.replace("Got unexpected extra", "There is no use for the extra")
    if near := getattr(error, "possibilities", None):  # sorted by similarity; click's own message sorts them by name
        sentence = f"{error.message}. Did you mean {near[0]!r}?"  # type: ignore[attr-defined]
    path = getattr(getattr(error, "ctx", None), "command_path", "actshift")
    return f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'} See `{path} --help`."


def _system_error(error: BaseException) -> int | None:
    """Return the number of a system error, which safetensors hides in a text, or of a full disk behind an error."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1])
    if os.strerror(errno.ENOSPC) in str(error):
        return errno.ENOSPC
    cause = error.__cause__ or error.__context__
    number = cause and _system_error(cause)
    return number if number in _FULL else None
