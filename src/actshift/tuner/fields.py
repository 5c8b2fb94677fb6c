"""Checks of the fields that configs inherit from PEFT and LoRA, whose own classes accept any value."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from peft.utils.peft_types import TaskType

from actshift.errors import ActshiftError, is_number, show
from actshift.tuner.patterns import MAX_LENGTH, check_patterns

MAX_ENTRIES = 10_000  # of a list or mapping in a config
MAX_TEXT = 4_096  # characters of a name or path
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")  # also lone surrogates and text direction
MAX_RANK = 2**16  # of LoRA; the rank of a shift is limited by the width of its site


class Field(NamedTuple):
    """A check of a field's value, and a phrase for the error message that names the allowed values."""

    accepts: Callable[[Any], bool]
    allowed: str


def is_text(value: Any) -> bool:
    """Return whether a value is text of moderate length without control characters."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and not CONTROL.search(value)


def is_path(value: Any) -> bool:
    """Return whether a value could be a path, even one that does not exist here. Messages escape control characters."""
    return isinstance(value, str) and len(value) <= MAX_LENGTH and not re.search("[\\0\ud800-\udfff]", value)


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 1 up."""
    return type(value) is int and 1 <= value < 2**31


def is_rank(value: Any) -> bool:
    """Return whether a value is a possible rank of LoRA."""
    return is_count(value) and value <= MAX_RANK


def is_name(value: Any) -> bool:
    """Return whether a value is text that is not empty."""
    return is_text(value) and bool(value)


def is_module_name(value: Any) -> bool:
    """Return whether a value is the name of a module, without the special characters of regular expressions."""
    return is_name(value) and re.fullmatch(r"[\w.-]+", value) is not None


def is_pattern(value: Any) -> bool:
    """Return whether a value is text that may be a regular expression."""
    return isinstance(value, str) and 0 < len(value) <= MAX_LENGTH and not CONTROL.search(value)


def is_index(value: Any) -> bool:
    """Return whether a value is the index of a block from 0 up."""
    return type(value) is int and value >= 0


def list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check for a list, tuple or set whose elements pass a check."""

    def accepts_list(value: Any) -> bool:
        is_list = isinstance(value, list | tuple | set | frozenset)
        return is_list and len(value) <= MAX_ENTRIES and all(map(accepts, value))

    return accepts_list


def dict_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check for a dict from names to values that pass a check."""

    def accepts_dict(value: Any) -> bool:
        is_dict = isinstance(value, Mapping) and len(value) <= MAX_ENTRIES
        return is_dict and all(is_pattern(key) and accepts(entry) for key, entry in value.items())

    return accepts_dict


def one_of(*choices: Any) -> Callable[[Any], bool]:
    """Return a check for some values, of the same type."""
    return lambda value: any(value is choice or (isinstance(value, str) and value == choice) for choice in choices)


def either(*checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check that passes if one of several does."""
    return lambda value: any(check(value) for check in checks)


NOTHING = one_of(None)
NAMES = list_of(is_name)
SWITCH = Field(one_of(True, False), "True or False")
TEXT = Field(either(NOTHING, is_text), f"text of at most {MAX_TEXT:,} characters without control characters, or None")
SIZE = Field(either(NOTHING, is_count), "a whole number from 1 up, or None")
MODULES = Field(
    either(NOTHING, is_pattern, NAMES),
    f"a list of at most {MAX_ENTRIES:,} module names such as ['q_proj'], a regular expression of at most "
    f"{MAX_LENGTH:,} characters, or None",
)
INITS = (True, False, "gaussian", "orthogonal", "eva", "mica")  # they keep the base model's weights

FIELDS = {
    "task_type": Field(one_of(None, *TaskType), f"one of {', '.join(TaskType)}, or None"),
    "peft_type": Field(one_of(None, "ACTSHIFT"), "'ACTSHIFT'"),
    "auto_mapping": Field(
        either(NOTHING, dict_of(either(is_text, one_of(None, True, False)))),
        "None, or a dict with base_model_class and parent_library",
    ),
    "peft_version": TEXT,
    "base_model_name_or_path": Field(either(NOTHING, is_path), "text, the path or id of a model, or None"),
    "revision": TEXT,
    "inference_mode": SWITCH,
    "modules_to_save": Field(
        either(NOTHING, list_of(is_module_name)),
        f"a list of at most {MAX_ENTRIES:,} names of modules such as ['score'], or None",
    ),
    "blocks": Field(either(NOTHING, is_name), "the name of a list of blocks such as 'model.layers', or None"),
    "strength": Field(is_number, "a finite number such as 4"),
    "d_model": SIZE,
    "num_blocks": SIZE,
    "r": Field(is_rank, f"a whole number from 1 to {MAX_RANK:,}"),
    "lora_alpha": Field(is_number, "a number such as 16"),
    "lora_dropout": Field(lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "target_modules": MODULES,
    "target_parameters": Field(either(NOTHING, NAMES), "a list of names of parameters, or None"),
    "exclude_modules": MODULES,
    "layers_to_transform": Field(
        either(NOTHING, is_index, list_of(is_index)),
        "a block index from 0 up, a list of them, or None",
    ),
    "layers_pattern": Field(
        either(NOTHING, is_text, list_of(is_pattern)), "a name such as 'layers', a list of names, or None"
    ),
    "rank_pattern": Field(
        either(NOTHING, dict_of(is_rank)), "a dict from names of modules to ranks such as {'q_proj': 4}"
    ),
    "alpha_pattern": Field(
        either(NOTHING, dict_of(is_number)), "a dict from names of modules to numbers such as {'q_proj': 16}"
    ),
    "use_rslora": SWITCH,
    "fan_in_fan_out": SWITCH,
    "init_lora_weights": Field(one_of(*INITS), f"one of {', '.join(map(repr, INITS))}, which keep the base weights"),
}
"""The checked fields by name."""


def check_field_values(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check the fields of a config that are in `FIELDS`, and its regular expressions.

    Raises:
        ActshiftError: a value of another type or outside of its limits, or a pattern that is no regular expression.

    >>> check_field_values({"r": 0}, ["r"])
    Traceback (most recent call last):
    actshift.errors.ActshiftError: r must be a whole number from 1 to 65,536; got 0.
    """
    for name in names:
        if name in FIELDS and name in values and not FIELDS[name].accepts(values[name]):
            value = values[name]
            is_long = isinstance(value, list | tuple | set | dict | str) and len(value) > 100
            size = f" ({len(value):,} in all)" if is_long else ""
            raise ActshiftError(f"{name} must be {FIELDS[name].allowed}; got {show(value)}{size}.")
    check_patterns(values, names)
