"""The base class of all errors, and checks and hints that their messages share."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from math import isfinite
from types import ModuleType


class ActshiftError(ValueError):
    """Invalid input. The message names the problem, the allowed values and the fix."""


class DivergedError(ActshiftError):
    """A trained value is not finite."""


def did_you_mean(name: object, allowed: Iterable[object]) -> str:
    """Return ` (did you mean 'x'?)` for the allowed name that is nearest, or "" if none is near.

    >>> did_you_mean("post_blok", ["post_block", "post_mlp"])
    " (did you mean 'post_block'?)"
    """
    near = get_close_matches(str(name), [str(other) for other in allowed], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_choice(name: str, value: object, allowed: Sequence[str], hint: str = "") -> None:
    """Raise ActshiftError unless a value is one of the allowed strings. `hint` completes the list in the message."""
    if value not in allowed:
        near = did_you_mean(value, allowed)
        raise ActshiftError(f"Unknown {name} {value!r}{near}. Use one of {', '.join(allowed)}{hint}.")


def check_fields(owner: str, fields: Iterable[object], allowed: Sequence[str]) -> None:
    """Raise ActshiftError for a field that is not allowed in the stored description of `owner`."""
    for field in fields:
        if field not in allowed:
            raise ActshiftError(
                f"Unknown field {field!r} of {owner}{did_you_mean(field, allowed)}. Its fields are: "
                f"{', '.join(allowed) or 'none'}. If a newer actshift wrote it, run pip install -U actshift."
            )


def is_number(value: object) -> bool:
    """Return whether a value is a finite int or float (bool does not count).

    >>> is_number(0.5), is_number(True), is_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, or the error's class name if it has no message.

    >>> first_line(ValueError("no such file\\nSee https://..."))
    'no such file'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
