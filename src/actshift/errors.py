"""The one base error, and the hint that its messages share."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType


class ActshiftError(ValueError):
    """A wrong input: one sentence that says what was given, what is allowed and what to do next."""


def did_you_mean(given: object, allowed: Iterable[object]) -> str:
    """Return ` (did you mean 'x'?)` for the allowed name nearest to what was given, or nothing.

    >>> did_you_mean("post_blok", ["post_block", "post_mlp"])
    " (did you mean 'post_block'?)"
    """
    near = get_close_matches(str(given), [str(name) for name in allowed], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what another library says of an error, or the error's type where it says nothing.

    >>> first_line(ValueError("no such file\\nSee https://..."))
    'no such file'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which comes with the extra ``actshift[extra]``.

    Raises:
        ActshiftError: when the module's package is not installed; the message names the command that does it.
        ModuleNotFoundError: when the package is there but lacks a dependency of its own.

    Example:
        >>> require("json", extra="train").__name__
        'json'
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ActshiftError(
            f"This needs the package {package!r}, which is not installed: pip install 'actshift[{extra}]'."
        ) from None
