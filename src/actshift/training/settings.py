"""Every setting of a training run, typed and checked; the command line and config files are read off this class."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import ge, gt, lt
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from actshift.errors import ActshiftError, did_you_mean

WHAT, SHIFT, TRAINING, MACHINE = "What", "The shift", "Training", "The machine"


def _setting(panel: str, default: Any, help: str, **limits: float) -> Any:
    """A field with its default, its help, and its limits: `least`, `above`, `below`."""
    return field(default=default, metadata={"help": help, "panel": panel, **limits})


@dataclass(frozen=True)
class TrainSettings:
    """What is trained, on what, and how; the defaults are the paper's protocol (arXiv 2603.00425) for steering.

    `fit` reads only what concerns the optimisation; model, data and out are for `train`.

    Raises ActshiftError for a value of the wrong type or out of its range.

    >>> TrainSettings(model="gpt2", data="rows.jsonl", out="run").learning_rate
    0.002
    """

    model: str | None = _setting(WHAT, None, "Base model: a folder or a Hugging Face id.")
    data: str | None = _setting(
        WHAT, None, "Rows to train on: a .jsonl, .json, .csv or .parquet file, or a dataset id."
    )
    out: str | None = _setting(WHAT, None, "Folder for the trained adapter; it must be new or empty.")
    eval_data: str | None = _setting(
        WHAT, None, "Rows to evaluate on, a file or a dataset id (its validation split); the best state is then kept."
    )
    eval_share: float = _setting(WHAT, 0.0, "Share of the training rows to hold out for evaluation.", least=0, below=1)

    adapter: str = _setting(SHIFT, "low_rank", "The shift: low_rank or vector.")
    rank: int = _setting(SHIFT, 8, "Rank r of a low-rank shift.")
    activation: str = _setting(SHIFT, "silu", "Its nonlinearity: silu, gelu, relu, tanh, or none for a linear one.")
    bias: bool = _setting(SHIFT, False, "Give both of its maps a bias.")
    init: str = _setting(
        SHIFT, "default", "Scale of its W_down at the start: default, or reference (the paper's code)."
    )
    site: str = _setting(SHIFT, "post_block", "Where to shift: post_block, post_mlp or post_attention.")
    layers: tuple[int | str, ...] | None = _setting(
        SHIFT, None, "Blocks to steer: an index, or a Python slice such as 4:8 or -4: (repeatable; all if left out)."
    )

    learning_rate: float = _setting(
        TRAINING, 2e-3, "Peak learning rate of AdamW; the paper tries 5e-4 to 5e-3.", above=0
    )
    epochs: float = _setting(TRAINING, 1.0, "Passes over the data.", above=0)
    max_steps: int | None = _setting(TRAINING, None, "Optimiser steps, instead of epochs.", least=1)
    batch_size: int = _setting(TRAINING, 8, "Rows in one forward pass.", least=1)
    gradient_accumulation: int = _setting(TRAINING, 2, "Forward passes in one optimiser step.", least=1)
    warmup: float = _setting(TRAINING, 0.03, "Share of the steps over which the learning rate rises.", least=0, below=1)
    weight_decay: float = _setting(TRAINING, 0.0, "Weight decay of AdamW.", least=0)
    schedule: Literal["linear", "cosine", "constant"] = _setting(TRAINING, "linear", "Learning rate after the warm-up.")
    max_length: int = _setting(
        TRAINING, 512, "Longest row in tokens; longer ones are left out (text is cut in pieces).", least=2
    )
    seed: int = _setting(TRAINING, 0, "Seed of the initial weights and of the order of rows.", least=0)
    precision: Literal["auto", "fp32", "bf16"] = _setting(MACHINE, "auto", "auto is bf16 on a GPU that computes in it.")
    gradient_checkpointing: bool = _setting(MACHINE, False, "Save memory by computing each block's forward pass twice.")
    save_steps: int | None = _setting(
        TRAINING, None, "Steps between checkpoints, and evaluations; a tenth of the run if left out.", least=1
    )
    trust_remote_code: bool = _setting(
        MACHINE, False, "Run code that comes with the model; only if you know its author."
    )

    def __post_init__(self) -> None:
        """Check every value and bring it to its declared type."""
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = _typed(item.name, getattr(self, item.name), hints[item.name])
            _check_range(item.name, value, item.metadata)
            object.__setattr__(self, item.name, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return the settings that `values` names, the others at their defaults.

        Raises ActshiftError for an unknown name, with the nearest known one.

        >>> TrainSettings.from_mapping({"learning_rate": "5e-4"}).learning_rate
        0.0005
        """
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ActshiftError(
                    f"There is no setting {name!r}{did_you_mean(name, known)}; 'actshift train --help' lists them."
                )
        return cls(**values)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a YAML or JSON file of settings says, not yet checked.

    Raises ActshiftError where there is no such file or it does not hold names with values.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if Path(path).suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ActshiftError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ActshiftError(f"The config file {path} is not valid: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ActshiftError(f"The config file {path} must hold one 'setting: value' a line.")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


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
        if all(isinstance(one, int | str) and not isinstance(one, bool) for one in values):
            return tuple(values)
    elif (converted := _converted(value, hint)) is not None:
        return converted
    raise ActshiftError(f"{name} must be {_NOUNS.get(hint, 'a list of numbers or slices')}, got {value!r}.")


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


_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    tests = {"least": ("at least", ge), "above": ("above", gt), "below": ("below", lt)}
    limits = [(word, test, metadata[key]) for key, (word, test) in tests.items() if key in metadata]
    if value is None or not limits:
        return
    if not math.isfinite(value) or not all(test(value, limit) for _, test, limit in limits):
        wanted = " and ".join(f"{word} {limit:g}" for word, _, limit in limits)
        raise ActshiftError(f"{name} must be {wanted}, got {value!r}.")
