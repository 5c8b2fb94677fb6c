"""One way to adapt a model, as a comparison knows it: its name, its settings, and the learning rates it is tried at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from actshift.errors import ActshiftError, did_you_mean
from actshift.training.settings import TrainSettings

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
