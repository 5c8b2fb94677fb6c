"""Optional dependencies: import them, or say how to get them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from actshift.errors import ActshiftError


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
