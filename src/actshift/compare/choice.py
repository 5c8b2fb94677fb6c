"""Which methods are compared: named ones, presets, and those that a file defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from actshift.compare.method import EQUAL, OF_COMPARISON, Method
from actshift.compare.paper import METHODS, PRESETS
from actshift.errors import ActshiftError, did_you_mean
from actshift.training.settings import TrainSettings, read_config_file
from actshift.training.settings.train_settings import MACHINE, TRAINING

FILES = (".yaml", ".yml", ".json")
KEYS = ("label", "settings", "rates", "lora_rates")


@dataclass(frozen=True)
class Choice:
    """The methods to compare, in order, and the settings (of TrainSettings) that hold for all of them."""

    methods: tuple[Method, ...]
    common: Mapping[str, Any] = field(default_factory=dict)


def choose(words: Sequence[str]) -> Choice:
    """Return the methods that `words` mean: names of methods or presets with commas between, and files.

    A file (.yaml or .json) holds `methods:`, a name each with label, settings and rates, and may hold `common:`. A
    method of the paper's name starts from the paper's, so that one may give only other rates.

    Raises ActshiftError for a name that is unknown or given twice, and for whatever is wrong in a file.

    >>> [method.label for method in choose(["vector,lora"]).methods]
    ['post-block vector', 'LoRA r=8']
    """
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    known, common, order = dict(METHODS), {}, []
    for name in names:
        if Path(name).suffix.lower() in FILES:
            values = _read(name)
            own = {own: _method(own, entry, name) for own, entry in values["methods"].items()}
            known.update(own)
            order += own
            common.update(values["common"])
        else:
            order += PRESETS.get(name, [name])
    for name in order:
        if name not in known:
            raise ActshiftError(
                f"There is no method {name!r}{did_you_mean(name, [*known, *PRESETS])}; there are "
                f"{', '.join([*PRESETS, *known])}, and a .yaml file defines others."
            )
    if not order:
        raise ActshiftError(f"No method is named; give some of {', '.join([*PRESETS, *known])}.")
    return Choice(tuple(known[name] for name in dict.fromkeys(order)), common)


def check_common(common: Mapping[str, Any], where: str) -> None:
    """Raise ActshiftError for a setting that is not one of training alone, equal for all methods."""
    allowed = [
        item.name
        for item in fields(TrainSettings)
        if (item.metadata["panel"] in (TRAINING, MACHINE) or item.name in EQUAL) and item.name not in OF_COMPARISON
    ]
    for name in common:
        if name not in allowed:
            raise ActshiftError(
                f"{where} holds no common setting {name!r}{did_you_mean(name, allowed)}; common to all methods are "
                f"{', '.join(allowed)}."
            )


def _read(path: str) -> dict[str, dict[str, Any]]:
    values = read_config_file(path)
    if wrong := next((key for key in values if key not in ("common", "methods")), None):
        raise ActshiftError(
            f"{path} has an unknown part {wrong!r}{did_you_mean(wrong, ('common', 'methods'))}; it takes methods and "
            "common."
        )
    parts = {part: values.get(part) or {} for part in ("methods", "common")}
    for part, value in parts.items():
        if not isinstance(value, dict):
            raise ActshiftError(f"In {path}, {part} must hold names with values, got {value!r}.")
    check_common(parts["common"], path)
    return parts


def _method(name: Any, entry: Any, path: str) -> Method:
    entry = entry or {}
    if not isinstance(entry, dict):
        raise ActshiftError(f"In {path}, the method {name} must hold {', '.join(KEYS)}, got {entry!r}.")
    if wrong := next((key for key in entry if key not in KEYS), None):
        raise ActshiftError(
            f"In {path}, the method {name} has an unknown part {wrong!r}{did_you_mean(wrong, KEYS)}; it takes "
            f"{', '.join(KEYS)}."
        )
    if not isinstance(entry.get("settings", {}), dict):
        raise ActshiftError(f"In {path}, settings of the method {name} must hold names with values.")
    known = METHODS.get(name)
    if known is None:
        return Method(name=str(name), **{"label": str(name), **entry})
    if "rates" in entry:  # whose partners no longer fit
        known = replace(known, rates=entry["rates"], lora_rates=entry.get("lora_rates", ()))
    return replace(known, **{**entry, "settings": {**known.settings, **entry.get("settings", {})}})
