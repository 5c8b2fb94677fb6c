"""Which methods are compared: named ones, presets, and those that a file defines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, did_you_mean
from actshift.training.settings import MACHINE, TRAINING, TrainSettings, read_config_file

BASE = "base"
"""The name under which a comparison keeps the untouched model."""
OF_COMPARISON = ("model", "task", "data_dir", "data", "out", "eval_data", "eval_share", "seed", "learning_rate")
"""Settings that the comparison itself gives every cell."""
EQUAL = (
    "objective", "chat", "epochs", "max_steps", "batch_size", "gradient_accumulation", "max_length", "group_by_length",
    "save_steps", "precision",
)  # fmt: skip
"""Settings that are the same for all methods, or they would not be compared on equal terms."""


@dataclass(frozen=True)
class Method:
    """A method: `settings` are its own values of TrainSettings, `rates` the learning rates to choose from.

    `lora_rates` gives the LoRA half of joint adaptation its own rate beside each of `rates`.

    Raises ActshiftError for a name that cannot name a folder, no rates or one twice, and for a setting that is
    unknown, wrong, or the comparison's and not a method's.

    >>> Method("small", "post-block r=2", {"rank": 2}, (1e-3, 2e-3)).cell_settings(2e-3, seed=1).rank
    2
    """

    name: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    lora_rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the names, the rates, and the settings at each rate."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name) or self.name == BASE:
            raise ActshiftError(f"A method cannot be called {self.name!r}; use letters, digits, - and _, not {BASE}.")
        object.__setattr__(self, "settings", dict(self.settings))
        for name in ("rates", "lora_rates"):
            object.__setattr__(self, name, _numbers(getattr(self, name), f"{name} of the method {self.name}"))
        if not self.rates or len({f"{rate:g}" for rate in self.rates}) < len(self.rates):
            raise ActshiftError(f"The method {self.name} needs learning rates, each once; got {list(self.rates)}.")
        if self.lora_rates and len(self.lora_rates) != len(self.rates):
            raise ActshiftError(
                f"The method {self.name} has {len(self.rates)} rates and {len(self.lora_rates)} lora_rates; give one "
                "for each."
            )
        self._check_settings()

    def lora_rate(self, rate: float) -> float | None:
        """The rate of the LoRA half that goes with `rate`, where it has one of its own."""
        return self.lora_rates[self.rates.index(rate)] if self.lora_rates else None

    def cell_settings(self, rate: float, seed: int, **common: Any) -> TrainSettings:
        """Return the settings of the run of this method at `rate` with `seed`; its own win over `common`."""
        values = {**common, **self.settings, "learning_rate": rate, "seed": seed}
        if self.lora_rates:
            values["lora_learning_rate"] = self.lora_rate(rate)
        return TrainSettings.from_mapping(values)

    def _check_settings(self) -> None:
        names = [item.name for item in fields(TrainSettings)]
        for name in self.settings:
            if name not in names:
                raise ActshiftError(
                    f"The method {self.name} has an unknown setting {name!r}{did_you_mean(name, names)}; "
                    "'actshift train --help' lists them."
                )
            if name in OF_COMPARISON:
                raise ActshiftError(f"The setting {name} is the comparison's, not that of the method {self.name}.")
            if name in EQUAL:
                raise ActshiftError(
                    f"The method {self.name} sets {name}, which must be equal for all methods; set it under 'common'."
                )
        try:
            for rate in self.rates:
                self.cell_settings(rate, seed=0)
        except ActshiftError as error:
            raise ActshiftError(f"In the method {self.name}: {error}") from None


def _numbers(values: Any, what: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)  # YAML reads 5e-4 as text
    except (TypeError, ValueError):
        raise ActshiftError(f"The {what} must be a list of numbers, got {values!r}.") from None


FULL_RATES = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4)
LORA_RATES = (5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3)
STEERING_RATES = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3)

_JOINT = {"method": "joint", "schedule": "cosine", "warmup": 0.06}

METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", {"method": "full"}, FULL_RATES),
        # All linear maps are these seven in a Llama, and their like in a model that names them otherwise.
        Method("lora", "LoRA r=8", {"method": "lora", "lora_r": 8}, LORA_RATES),
        Method("reft", "ReFT r=8", {"adapter": "loreft", "site": "post_mlp", "rank": 8}, STEERING_RATES),
        # Every head kept: the paper gives LoFiT as many parameters as the post-block vector (0.003 % of Llama-3.2-1B).
        Method("lofit", "LoFiT", {"adapter": "lofit", "lofit_share": 1.0}, STEERING_RATES),
        Method("jola", "JoLA", {"adapter": "jola"}, STEERING_RATES),
        Method("vector", "post-block vector", {"adapter": "vector"}, STEERING_RATES),
        # The paper's table does not say which r=1 it is; its default nonlinearity is taken.
        Method("rank1", "post-block r=1", {"rank": 1}, STEERING_RATES),
        Method("linear", "post-block r=8 linear", {"rank": 8, "activation": "none"}, STEERING_RATES),
        Method("nonlinear", "post-block r=8", {"rank": 8}, STEERING_RATES),
        # The paper starts from 2e-4 and allows a rate for each half; here the halves walk up their own grids together.
        Method("joint", "joint, orthogonal", _JOINT, STEERING_RATES, LORA_RATES),
        Method("joint_free", "joint, free", {**_JOINT, "orthogonality": "none"}, STEERING_RATES, LORA_RATES),
        Method("post_mlp", "post-MLP r=8", {"site": "post_mlp", "rank": 8}, STEERING_RATES),
        Method("post_attention", "post-attention r=8", {"site": "post_attention", "rank": 8}, STEERING_RATES),
    )
}
"""Every method with a name of its own."""

PRESETS: dict[str, Sequence[str]] = {
    "paper": [name for name in METHODS if name not in ("post_mlp", "post_attention")],
    "all": list(METHODS),
}
"""Names that stand for several methods."""


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
