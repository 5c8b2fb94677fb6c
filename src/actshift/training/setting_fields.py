"""Fields of a settings class: help text, panel, limits, and the check of a value against its declared type."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields
from functools import cache
from operator import ge, gt, le, lt
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from actshift.errors import ActshiftError, did_you_mean, is_longer, show

LIMITS = {"least": ("at least", ge), "above": ("above", gt), "most": ("at most", le), "below": ("below", lt)}
LARGEST = 2**32 - 1  # of whole numbers: the largest seed of NumPy, and more than any other setting needs
MOST_VALUES = 100_000  # of a list
NOUNS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"} | {
    (int, str): "a list of numbers or slices",
    (str,): "a list of names",
}


def setting(
    panel: str,
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    applies_to: Mapping[str, Sequence[Any]] | None = None,
    **limits: Any,
) -> Any:
    """Return a dataclass field for one setting.

    Args:
        panel: the heading of its flag in `--help`.
        choices: the allowed values, if they come from a registry and not from a `Literal` type.
        applies_to: other settings, with the values for which this one has an effect, such as `{"method": ("lora",)}`.
        limits: bounds of a number: `least`, `above`, `most`, `below`.
    """
    texts = {"help": help, "panel": panel, "choices": choices, "applies_to": applies_to or {}}
    return field(default=default, metadata=texts | limits)


def convert_fields(settings: Any) -> None:
    """Convert frozen settings to their declared types in place, and ~/ to the home folder.

    Raises:
        ActshiftError: a value has the wrong type, or is out of its range.
    """
    hints = _type_hints(type(settings))
    for item in fields(settings):
        value = _with_home(_converted(item.name, getattr(settings, item.name), hints[item.name]))
        if value is not None:
            _check_choice(item.name, value, item.metadata.get("choices") or [value])
            _check_limits(item.name, value, item.metadata)
        object.__setattr__(settings, item.name, value)


_type_hints = cache(get_type_hints)  # the command line creates many settings objects at startup


def names_in_source(path: Path, pattern: str) -> list[Any]:
    """Return all matches of a regular expression's group (or tuples of groups) in a source file or a package's files.

    It lists the names in a registry without importing the modules that fill it, which may import torch.

    >>> names_in_source(Path(__file__), r"^def (names_in\\w+)")
    ['names_in_source']
    """
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    return [name for file in files for name in re.findall(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)]


def _converted(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) in (UnionType, Union):
        if value is None:
            return None
        options = [option for option in get_args(hint) if option is not NoneType]
        hint = options[-1]
        if len(options) > 1 and isinstance(value, list | tuple) and len(value) == 1:  # one name is not a list of names
            return _converted(name, value[0], options[0])
        if len(options) > 1 and not isinstance(value, list | tuple):
            hint = options[0]
    if get_origin(hint) is Literal:
        return _check_choice(name, value, get_args(hint))
    if get_origin(hint) is tuple:
        values = cast("Sequence[Any]", value if isinstance(value, list | tuple | range) else [value])
        if is_longer(values, MOST_VALUES):
            raise ActshiftError(f"{name} must have at most {MOST_VALUES:,} values.")
        allowed = get_args(get_args(hint)[0]) or get_args(hint)[:1]
        if all(type(element) in allowed for element in values):
            return tuple(values)
        hint = allowed
    elif (converted := _scalar(value, hint)) is not None:
        return converted
    raise ActshiftError(f"{name} must be {NOUNS[hint]}, got {show(value)}.")


def _with_home(value: Any) -> Any:
    """Return a text, or a tuple of texts, with ~/ replaced by the home folder, as shells do for most arguments."""
    if isinstance(value, tuple):
        return tuple(map(_with_home, cast("tuple[Any, ...]", value)))
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _scalar(value: Any, hint: type) -> Any:
    if type(value) is hint:
        return value
    if hint is str and isinstance(value, Path):
        return str(value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            return float(value)  # YAML reads 5e-4 as text
    return None


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> Any:
    if value not in allowed:
        raise ActshiftError(
            f"{name} must be one of {', '.join(allowed)}, got {show(value)}{did_you_mean(value, allowed)}."
        )
    return value


def _check_limits(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ActshiftError(f"{name} must be at most {LARGEST}, got {show(value)}.")
    limits = [(words, test, metadata[key]) for key, (words, test) in LIMITS.items() if key in metadata]
    if limits and not (math.isfinite(value) and all(test(value, limit) for _, test, limit in limits)):
        allowed = " and ".join(f"{words} {limit:g}" for words, _, limit in limits)
        raise ActshiftError(f"{name} must be {allowed}, got {show(value)}.")
