"""The methods of a comparison: named ones, presets, and methods from a file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from actshift.errors import ActshiftError, did_you_mean
from actshift.mappings import MAPPING_SUFFIXES
from actshift.training.settings import MACHINE, TRAINING, TrainSettings, read_config_file

BASE = "base"  # the name of the untouched model in a comparison
SET_PER_CELL = (
    "model",
    "revision",
    "task",
    "data_dir",
    "data",
    "map",
    "out",
    "eval_data",
    "eval_share",
    "seed",
    "learning_rate",
)
"""Settings that the comparison itself gives to every cell."""
EQUAL = (
    "objective", "chat", "epochs", "max_steps", "batch_size", "gradient_accumulation", "max_length", "group_by_length",
    "save_steps", "precision", "limit",
)  # fmt: skip
"""Settings that must be equal for all methods, so that the comparison is fair."""


@dataclass(frozen=True)
class Method:
    """A method to compare: its own training settings and the learning rates to choose from.

    `name` is used for the cells' folder and in table.json, `label` in tables and figures. For joint adaptation,
    `lora_rates` are the learning rates of the LoRA half that go with `rates`.

    Raises:
        ActshiftError: if the name cannot name a folder, if rates are missing or repeated, or if a setting is unknown,
            invalid or not the method's to set.

    >>> Method("small", "post-block r=2", {"rank": 2}, (1e-3, 2e-3)).cell_settings(2e-3, seed=1).rank
    2
    """

    name: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=lambda: {})
    rates: tuple[float, ...] = ()
    lora_rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the name, the rates, and the settings at each rate."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name) or self.name == BASE:
            allowed = f"Use letters, digits, '-' and '_', and not {BASE!r}."
            raise ActshiftError(f"A method cannot be called {self.name!r}. {allowed}")
        owner = f"The method {self.name}"
        object.__setattr__(self, "settings", dict(self.settings))
        for name in ("rates", "lora_rates"):
            values = getattr(self, name)
            try:
                object.__setattr__(self, name, tuple(map(float, values)))  # YAML reads 5e-4 as text
            except (TypeError, ValueError):
                problem = f"The {name} of the method {self.name} must be a list of numbers"
                raise ActshiftError(f"{problem}, got {values!r}.") from None
        rates, halves = len(self.rates), len(self.lora_rates)
        if not rates or len({f"{rate:g}" for rate in self.rates}) < rates:
            raise ActshiftError(f"{owner} needs learning rates, each once. Got {list(self.rates)}.")
        if halves not in (0, rates):
            raise ActshiftError(f"{owner} has {rates} rates and {halves} lora_rates. Give one lora_rate for each rate.")
        for name in self.settings:
            if name in SET_PER_CELL:
                raise ActshiftError(f"{owner} sets {name}, which the comparison sets. Remove it.")
            if name in EQUAL:
                raise ActshiftError(f"{owner} sets {name}, which must be equal for all methods. Set it under 'common'.")
        try:
            for rate in self.rates:
                self.cell_settings(rate, seed=0)
        except ActshiftError as error:
            raise ActshiftError(f"In the method {self.name}: {error}") from None

    def lora_rate(self, rate: float) -> float | None:
        """Return the learning rate of the LoRA half that goes with `rate`, or None without `lora_rates`."""
        return self.lora_rates[self.rates.index(rate)] if self.lora_rates else None

    def cell_settings(self, rate: float, seed: int, **common: Any) -> TrainSettings:
        """Return the training settings at `rate` with `seed`; the method's own settings override `common`."""
        values = {**common, **self.settings, "learning_rate": rate, "seed": seed}
        if self.lora_rates:
            values["lora_learning_rate"] = self.lora_rate(rate)
        return TrainSettings.from_mapping(values)


FULL_RATES = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4)
LORA_RATES = (5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3)
STEERING_RATES = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3)

_JOINT = {"method": "joint", "schedule": "cosine", "warmup": 0.06}

METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", {"method": "full"}, FULL_RATES),
        # The paper's "all linear maps" are the seven projections of a Llama block, or their equivalents elsewhere.
        Method("lora", "LoRA r=8", {"method": "lora", "lora_r": 8}, LORA_RATES),
        Method("reft", "ReFT r=8", {"adapter": "loreft", "site": "post_mlp", "rank": 8}, STEERING_RATES),
        # All heads are kept: in the paper, LoFiT has as many parameters as the vector (0.003 % of Llama-3.2-1B).
        Method("lofit", "LoFiT", {"adapter": "lofit", "lofit_share": 1.0}, STEERING_RATES),
        Method("jola", "JoLA", {"adapter": "jola"}, STEERING_RATES),
        Method("vector", "post-block vector", {"adapter": "vector"}, STEERING_RATES),
        # The paper's table does not name the nonlinearity of r=1; this uses the paper's default.
        Method("rank1", "post-block r=1", {"rank": 1}, STEERING_RATES),
        Method("linear", "post-block r=8 linear", {"rank": 8, "activation": "none"}, STEERING_RATES),
        Method("nonlinear", "post-block r=8", {"rank": 8}, STEERING_RATES),
        # The paper starts from 2e-4 and allows one rate for each half; here both grids advance together.
        Method("joint", "joint, orthogonal", _JOINT, STEERING_RATES, LORA_RATES),
        Method("joint_free", "joint, free", {**_JOINT, "orthogonality": "none"}, STEERING_RATES, LORA_RATES),
        Method("post_mlp", "post-MLP r=8", {"site": "post_mlp", "rank": 8}, STEERING_RATES),
        Method("post_attention", "post-attention r=8", {"site": "post_attention", "rank": 8}, STEERING_RATES),
    )
}

PRESETS = {"paper": [name for name in METHODS if name not in ("post_mlp", "post_attention")], "all": [*METHODS]}


class MethodSelection(NamedTuple):
    """The methods to compare, in order, and the values of TrainSettings that all of them share."""

    methods: tuple[Method, ...]
    common: Mapping[str, Any]


def select_methods(words: Sequence[str]) -> MethodSelection:
    """Return the methods that `words` name: comma-separated names of methods or presets, and files.

    A .yaml or .json file maps names to labels, settings and rates under `methods:`; `common:` is optional. An entry
    with the name of a built-in method changes only the given parts of it.

    Raises:
        ActshiftError: if a name is unknown, if no method is named, or if a file is invalid.

    >>> [method.label for method in select_methods(["vector,lora"]).methods]
    ['post-block vector', 'LoRA r=8']
    """
    known, common, selected = dict(METHODS), dict[str, Any](), list[str]()
    for name in (name.strip() for word in words for name in word.split(",") if name.strip()):
        if Path(name).suffix.lower() in MAPPING_SUFFIXES:
            sections = _read(name)
            defined = {key: _parse_method(key, entry, name) for key, entry in sections["methods"].items()}
            known.update(defined)
            selected += defined
            common.update(sections["common"])
        else:
            selected += PRESETS.get(name, [name])
    choice = f"Choose from {', '.join([*PRESETS, *known])}"
    _check_known("There is no method", selected, [*known, *PRESETS], f"{choice}, or define methods in a .yaml file.")
    if not selected:
        raise ActshiftError(f"No method is named. {choice}.")
    return MethodSelection(tuple(known[name] for name in dict.fromkeys(selected)), common)


def check_common(common: Mapping[str, Any], where: str) -> None:
    """Raise ActshiftError if `common` contains a setting that methods cannot share; messages start with `where`."""
    shared = {item.name for item in fields(TrainSettings) if item.metadata["panel"] in (TRAINING, MACHINE)} | {*EQUAL}
    allowed = [item.name for item in fields(TrainSettings) if item.name in shared - {*SET_PER_CELL}]
    problem = f"{where}, methods cannot share the setting"
    _check_known(problem, common, allowed, f"They can share {', '.join(allowed)}.")


def _read(path: str) -> dict[str, dict[str, Any]]:
    values = read_config_file(path)
    _check_mapping(path, values, ("methods", "common"))
    sections = {section: values.get(section) or {} for section in ("methods", "common")}
    for section, value in sections.items():
        _check_mapping(f"In {path}, {section}", value)
    check_common(sections["common"], f"In {path}")
    return sections


def _parse_method(name: Any, entry: Any, path: str) -> Method:
    owner, entry = f"In {path}, the method {name}", entry or {}
    _check_mapping(owner, entry, ("label", "settings", "rates", "lora_rates"))
    values: dict[str, Any] = {"label": str(name), "settings": {}, **entry}
    _check_mapping(f"{owner}: settings", values["settings"])
    if known := METHODS.get(name):
        grid = {} if "rates" in entry else {"rates": known.rates, "lora_rates": known.lora_rates}
        values = {"label": known.label, **grid, **entry, "settings": {**known.settings, **values["settings"]}}
    return Method(str(name), **values)


def _check_mapping(owner: str, values: Any, keys: Sequence[str] = ()) -> None:
    if not isinstance(values, dict):
        contents = f"hold {', '.join(keys)}" if keys else "map names to values"
        raise ActshiftError(f"{owner} must {contents}, got {values!r}.")
    if keys:
        _check_known(f"{owner} has an unknown key", values, keys, f"Use {', '.join(keys)}.")


def _check_known(problem: str, names: Iterable[str], allowed: Sequence[str], fix: str) -> None:
    for name in names:
        if name not in allowed:
            raise ActshiftError(f"{problem} {name!r}{did_you_mean(name, allowed)}. {fix}")
