"""The base class of all errors, and checks and hints that their messages share."""

import re
import warnings
from collections.abc import Hashable, Iterable, Sequence, Sized
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from math import isfinite
from reprlib import Repr
from types import ModuleType
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

MAX_MESSAGE = 2000  # characters of an error message
# Control characters except tab and line breaks, line separators, reversed text, and halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)")


class ActshiftError(ValueError):
    r"""Invalid input. The message names the problem, the allowed values and the fix.

    A message may quote names from files, so it is shown on one line, with control characters escaped.

    >>> str(ActshiftError("No tensor \x1b[31mred"))
    'No tensor \\x1b[31mred'
    """

    def __str__(self) -> str:
        text = printable(" ".join(line.strip() for line in super().__str__().splitlines()))
        half = MAX_MESSAGE // 2
        return text if len(text) <= MAX_MESSAGE else f"{text[:half]} … {text[-half:]}"


def printable(text: str) -> str:
    r"""Return a text with control characters as escapes, so that no terminal obeys them. Line breaks and tabs stay.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\n'
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def show(value: object) -> str:
    """Return a short form of any value for an error message, without the inside of large or deeply nested ones.

    >>> show(list(range(10**6)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print a number of over 4300 digits
        return "a number of thousands of digits"


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlevel = 4


@cache
def warn_once(message: str) -> None:
    """Show a warning only once per process."""
    warnings.warn(message, stacklevel=1)


class DivergedError(ActshiftError):
    """A trained value is not finite."""


def did_you_mean(name: object, allowed: Iterable[object]) -> str:
    """Return ` (did you mean 'x'?)` for the allowed name that is nearest, or "" if none is near.

    >>> did_you_mean("post_blok", ["post_block", "post_mlp"])
    " (did you mean 'post_block'?)"
    """
    text = name if isinstance(name, str) else show(name)
    near = get_close_matches(text, [str(other) for other in allowed], n=1) if len(text) < 100 else ()
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_choice(name: str, value: object, allowed: Sequence[str], hint: str = "") -> None:
    """Raise ActshiftError unless a value is one of the allowed strings. `hint` completes the list in the message."""
    if value not in allowed:
        near = did_you_mean(value, allowed)
        raise ActshiftError(f"Unknown {name} {show(value)}{near}. Use one of {', '.join(allowed)}{hint}.")


def check_fields(owner: str, fields: Iterable[object], allowed: Sequence[str]) -> None:
    """Raise ActshiftError for a field that is not allowed in the stored description of `owner`."""
    for field in fields:
        if field not in allowed:
            raise ActshiftError(
                f"Unknown field {show(field)} of {owner}{did_you_mean(field, allowed)}. Its fields are: "
                f"{', '.join(allowed) or 'none'}. If a newer actshift wrote it, run pip install -U actshift."
            )


def is_number(value: object) -> bool:
    """Return whether a value is a finite int or float (bool does not count).

    >>> is_number(0.5), is_number(True), is_number(float("nan"))
    (True, False, False)
    """
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:  # an int above every float
        return False


def is_longer(values: Sized, limit: int) -> bool:
    """Return whether a list or range has more than `limit` elements. The length of a range may exceed every integer.

    >>> is_longer(range(10**30), 10)
    True
    """
    try:
        return len(values) > limit
    except OverflowError:
        return True


def first_repeated(values: Iterable[T]) -> T | None:
    """Return the first value that equals an earlier one, or None.

    >>> first_repeated(["a", "b", "a"])
    'a'
    """
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def find_surrogate(text: str) -> int | None:
    r"""Return the index of the first lone surrogate, which UTF-8 cannot encode, or None.

    >>> find_surrogate("ab\ud83d")
    2
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return error.start
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, or the error's class name if it has no message.

    >>> first_line(ValueError("no such file\\nSee https://..."))
    'no such file'
    """
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency, which the extra `actshift[extra]` installs.

    Raises:
        ActshiftError: the package is not installed. The message contains the command that installs it.
        ModuleNotFoundError: the package is installed, but one of its dependencies is missing.

    >>> require("json", extra="train").__name__
    'json'
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        message = f"This needs the package {package!r}, which is not installed: pip install 'actshift[{extra}]'."
        raise ActshiftError(message) from None
