"""One field of a settings class: its help, its panel, what it belongs to, and the check of a value given for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from functools import cache
from operator import ge, gt, le, lt
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from actshift.errors import ActshiftError, did_you_mean


def setting(
    panel: str, default: Any, help: str, *, of: Mapping[str, Sequence[Any]] | None = None, **limits: Any
) -> Any:
    """Return a field with its default, its help, and its limits: `least`, `above`, `most`, `below`.

    `of` names other settings and the values at which this one says anything, such as `{"method": ("lora",)}`.
    """
    return field(default=default, metadata={"help": help, "panel": panel, "of": of or {}, **limits})


def check_fields(settings: Any) -> None:
    """Bring every field of a frozen settings object to its declared type.

    Raises ActshiftError for a value of another type or out of the field's limits.
    """
    hints = _hints(type(settings))
    for item in fields(settings):
        object.__setattr__(settings, item.name, checked(item, getattr(settings, item.name), hints[item.name]))


_hints = cache(get_type_hints)
"""Read once a class, since the command line makes many settings before it does anything."""


def checked(item: Field, value: Any, hint: Any) -> Any:
    """Return `value` in the type that `hint` declares for the field `item`.

    Raises ActshiftError for a value of another type or out of the field's limits.
    """
    value = _typed(item.name, value, hint)
    _check_range(item.name, value, item.metadata)
    return value


def _typed(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) in (UnionType, Union):
        if value is None:
            return None
        [hint] = [option for option in get_args(hint) if option is not NoneType]
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        allowed = get_args(hint)
        raise ActshiftError(f"{name} must be one of {', '.join(allowed)}, got {value!r}{did_you_mean(value, allowed)}.")
    if get_origin(hint) is tuple:
        values = value if isinstance(value, list | tuple | range) else [value]
        allowed = get_args(get_args(hint)[0]) or get_args(hint)[:1]
        if all(type(one) in allowed for one in values):
            return tuple(values)
        hint = allowed
    elif (converted := _converted(value, hint)) is not None:
        return converted
    raise ActshiftError(f"{name} must be {_NOUNS[hint]}, got {value!r}.")


def _converted(value: Any, kind: type) -> Any:
    if type(value) is kind:
        return value
    if kind is str and isinstance(value, Path):
        return str(value)
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 5e-4 as text
        except ValueError:
            return None
    return None


_NOUNS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    (int, str): "a list of numbers or slices",
    (str,): "a list of names",
}


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    tests = {"least": ("at least", ge), "above": ("above", gt), "most": ("at most", le), "below": ("below", lt)}
    limits = [(word, test, metadata[key]) for key, (word, test) in tests.items() if key in metadata]
    if value is None or not limits:
        return
    if not math.isfinite(value) or not all(test(value, limit) for _, test, limit in limits):
        wanted = " and ".join(f"{word} {limit:g}" for word, _, limit in limits)
        raise ActshiftError(f"{name} must be {wanted}, got {value!r}.")
