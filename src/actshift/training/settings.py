"""The settings of a training run. Light to import: the command line is generated from them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from actshift.errors import ActshiftError, did_you_mean
from actshift.mappings import read_mapping
from actshift.training.setting_fields import convert_fields, names_in_source, setting

WHAT, SHIFT, WEIGHTS = "Model and data", "Steering adapter", "LoRA and joint training"
REWARD, TRAINING, MACHINE = "Preferences and rewards", "Training", "Machine"
ADAPTER = "Options of single adapters"  # settings that only some adapters have, under the names of their own fields
LEARNING_RATES = {"steering": 2e-3, "lora": 3e-4, "full": 2e-5, "joint": 2e-4}  # the middle of the paper's grids
RATE_SCALE = {"dpo": 0.05, "grpo": 0.05}  # of the default: TRL trains full models at 1e-6 for these, and sft uses 2e-5

_HERE = Path(__file__).parent
_KINDS = names_in_source(_HERE.parent / "adapters", r'^    kind(?:: ClassVar\[str\])? = "(\w+)"$')
ADAPTERS = (*(kind for kind in _KINDS if kind not in ("head_scale", "head_vector")), "lofit")
SITES = names_in_source(_HERE.parent / "sites", r'^    "(\w+)": Site\(')
_OBJECTIVE = r'^    name\b.*= "(\w+)"\n    summary\b.*= "(.+)"'  # both lines, so that no name gets another summary
OBJECTIVES, SUMMARIES = zip(*names_in_source(_HERE / "objectives", _OBJECTIVE), strict=True)
REWARDS = names_in_source(_HERE / "rewards.py", r"^@register_reward\ndef (\w+)")

_OBJECTIVES = ", ".join(map("{} ({})".format, OBJECTIVES, SUMMARIES))
_RATES = ", ".join(f"{rate:g} for {method}" for method, rate in LEARNING_RATES.items())

SOURCES = (
    "a .jsonl, .json, .csv, .tsv or .parquet file, or a dataset id. Repeat it to join several, or to mix them by "
    "weights: a.jsonl=0.7."
)
STEERS = {"method": ("steering", "joint")}
JOINT = {"method": ("joint",)}

_data = partial(setting, WHAT)
_shift = partial(setting, SHIFT, applies_to=STEERS)
_ends = partial(setting, SHIFT, applies_to={"positions": ("ends",)})
_option = partial(setting, ADAPTER, applies_to=STEERS)
_lofit = partial(setting, ADAPTER, applies_to={"method": ("steering",), "adapter": ("lofit",)})
_lora = partial(setting, WEIGHTS, applies_to={"method": ("lora", "joint")})
_joint = partial(setting, WEIGHTS, applies_to=JOINT)
_rule = partial(setting, WEIGHTS, applies_to=JOINT | {"orthogonality": ("read", "write", "both")})
_preference = partial(setting, REWARD, applies_to={"objective": ("dpo", "grpo")})
_grpo = partial(setting, REWARD, applies_to={"objective": ("grpo",)})
_train = partial(setting, TRAINING)
_machine = partial(setting, MACHINE)
_steering = partial(setting, MACHINE, applies_to={"method": ("steering",)})
_cache = partial(setting, MACHINE, applies_to={"cache_prefix": ("memory", "disk")})


@dataclass(frozen=True)
class TrainSettings:
    """The model, the data and the hyperparameters of a run. `fit` reads only the settings of the optimisation.

    The defaults are the paper's protocol for steering (arXiv 2603.00425).

    Raises:
        ActshiftError: a value has the wrong type or is out of its range, or has no effect with the chosen method.

    Example:
        >>> TrainSettings(model="gpt2", data="rows.jsonl", out="run").rate
        0.002
    """

    model: str | None = _data(None, "Base model: a folder, a GGUF file or a Hugging Face id.")
    revision: str | None = _data(None, "Branch, tag or commit of a base model on the hub. By default main.")
    data: str | tuple[str, ...] | None = _data(None, f"Training rows: {SOURCES}")
    task: str | None = _data(None, "Task to train on instead of --data: a name from 'actshift tasks', or a .yaml file.")
    data_dir: str | None = _data(None, "Folder with the task's rows as DIR/TASK/SPLIT.jsonl.gz; the hub by default.")
    out: str | None = _data(None, "Output folder; it must be new or empty.")
    map: tuple[str, ...] | None = _data(None, "Column to read under another name: prompt=question (repeatable).")
    eval_data: str | tuple[str, ...] | None = _data(
        None, "Evaluation rows: a file or a dataset id (repeatable). The best checkpoint on them is kept."
    )
    limit: int | None = _data(
        None, "Use at most this many rows of each source and each split, from the first. By default all.", least=1
    )
    eval_share: float = _data(0.0, "Share of the training rows to use for evaluation instead.", least=0, below=1)
    method: Literal["steering", "lora", "joint", "full"] = _data(
        "steering", "Weights to train: a steering adapter, LoRA, both of them (joint), or every weight (full)."
    )
    objective: str | None = _data(
        None, f"Training objective: {_OBJECTIVES}. By default sft, or for encoders by the columns.", choices=OBJECTIVES
    )
    chat: bool = _data(True, "Render a task's rows with the tokenizer's chat template, if it has one.")
    loss: Literal["assistant", "last"] = setting(
        WHAT,
        "assistant",
        "Turns of a chat to learn: every one of the assistant, or the last one.",
        applies_to={"objective": (None, "sft")},
    )

    adapter: str = _shift("low_rank", f"Kind of adapter: {', '.join(ADAPTERS)}.")
    site: str | None = _shift(
        None, f"Activation to steer: {', '.join(SITES)}. By default post_block, or attention_heads for head adapters."
    )
    layers: tuple[int | str, ...] | None = _shift(None, "Blocks to steer, such as -1 or 4:8 (repeatable; default all).")
    positions: Literal["all", "prompt", "generated", "last", "ends"] = _shift(
        "all", "Tokens to steer: all, the prompt, the generated ones, the last one of the prompt, or both ends of it."
    )
    interventions: str | None = _shift(None, "File from locate --budget --out; replaces adapter, site and layers.")
    start: str | None = _shift(None, "Saved adapter of the same kind to start from, for example from actshift vector.")
    first_tokens: int = _ends(7, "Steered tokens at the start of the prompt.", least=0)
    last_tokens: int = _ends(7, "Steered tokens at the end of the prompt.", least=0)

    rank: int = _option(8, "Rank r of a low-rank adapter.")
    activation: str = _option("silu", "Nonlinearity of low_rank: silu, gelu, relu, tanh, or none.")
    bias: bool = _option(False, "Add a bias to both maps of low_rank.")
    init: str = _option("default", "Initial W_down of low_rank: default, reference (the paper's scale), or gradient.")
    l0: float = _option(4e-5, "Weight of the penalty on open gates in jola.", least=0)
    l1: float = _option(1e-3, "Weight of the penalty on the scales in lofit.", least=0)
    lofit_heads: int | None = _lofit(None, "Attention heads that lofit keeps, over all blocks.", least=1)
    lofit_share: float = _lofit(0.1, "Share of all heads that lofit keeps without lofit_heads.", above=0, most=1)
    lofit_steps: float = _lofit(0.5, "Share of the steps in which lofit selects its heads.", above=0, below=1)

    lora_r: int = _lora(8, "Rank of LoRA.", least=1)
    lora_alpha: float = _lora(16, "LoRA's α; updates are scaled by α / rank.", above=0)
    lora_dropout: float = _lora(0.0, "Dropout on LoRA's input.", least=0, below=1)
    lora_targets: tuple[str, ...] | None = _lora(None, "Layers with LoRA, such as q_proj (repeatable; all by default).")
    lora_learning_rate: float | None = _joint(None, "Peak learning rate of LoRA; by default learning_rate.", above=0)
    orthogonality: Literal["read", "write", "both", "none"] = _joint(
        "read", "Side of the adapter that is kept orthogonal to LoRA's output in its block."
    )
    orthogonality_every: str = _rule("1", "Optimiser steps between enforcements of the constraint, or 'epoch'.")
    orthogonality_penalty: float | None = _rule(None, "Weight of a soft penalty that replaces the constraint.", above=0)

    reward: tuple[str, ...] | None = _grpo(
        None, f"Reward for grpo: {', '.join(REWARDS)}, or a function as module:function (repeatable; the sum counts)."
    )
    scorer: str | None = _grpo(None, f"Scorer of {' and '.join(REWARDS)}; by default the task's, or exact match.")
    beta: float | None = _preference(None, "β of dpo (default 0.1), or the KL weight of grpo (default 0).", least=0)
    generations: int = _grpo(8, "Completions that grpo samples per prompt.", least=2)
    max_new_tokens: int | None = _grpo(None, "Maximum tokens of a completion; by default the task's, or 64.", least=1)
    temperature: float = _grpo(1.0, "Sampling temperature of the completions.", above=0)

    learning_rate: float | None = _train(
        None, f"Peak learning rate of AdamW; by default {_RATES}. For dpo and grpo, a 20th of it.", above=0
    )
    epochs: float = _train(1.0, "Passes over the data.", above=0, most=1e6)
    max_steps: int | None = _train(None, "Optimiser steps; overrides epochs.", least=1)
    batch_size: int = _train(8, "Rows per forward pass.", least=1)
    gradient_accumulation: int = _train(2, "Forward passes per optimiser step.", least=1)
    warmup: float = _train(0.03, "Share of the steps for the learning rate warm-up.", least=0, below=1)
    weight_decay: float = _train(0.0, "Weight decay of AdamW.", least=0)
    schedule: Literal["linear", "cosine", "constant"] = _train("linear", "Learning rate schedule after the warm-up.")
    max_length: int = _train(
        512, "Maximum tokens of a row, or of a prompt for grpo. Longer rows are skipped, plain text is split.", least=2
    )
    group_by_length: bool = _train(
        False, "Batch rows of similar length to reduce padding. Except for embed, batches then repeat in every epoch."
    )
    seed: int = _train(0, "Seed of the initial weights and of the order of the rows.", least=0)
    save_steps: int | None = _train(None, "Steps between checkpoints and evaluations (default: run / 10).", least=1)
    precision: Literal["auto", "fp32", "bf16"] = _machine(
        "auto", "Compute precision; auto is bf16 on a GPU with hardware support, else fp32."
    )
    gradient_checkpointing: bool = _machine(False, "Recompute activations in the backward pass to save memory.")
    cache_prefix: Literal["off", "memory", "disk"] = _steering(
        "off", "Cache each batch's output of the blocks below the first steered one; needs --group-by-length."
    )
    cache_limit: float = _cache(4.0, "Maximum size of this cache in GiB; batches beyond it are recomputed.", above=0)
    trust_remote_code: bool = _machine(False, "Run Python code that comes with the model, if you trust its author.")

    def __post_init__(self) -> None:
        """Check every value and convert it to its declared type."""
        convert_fields(self)
        for item in fields(self):
            if getattr(self, item.name) != item.default:
                for name, allowed in item.metadata["applies_to"].items():
                    if (value := getattr(self, name)) not in allowed:
                        problem = f"{item.name} has no effect when {name} is {value}"
                        usable = " or ".join(filter(None, allowed))
                        raise ActshiftError(f"{problem}; leave it out, or use {name} {usable}.")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return settings with these values; missing ones take the task's value, or else the default.

        Raises:
            ActshiftError: a name or the task is unknown; the message suggests the nearest setting.

        Example:
            >>> TrainSettings.from_mapping({"learning_rate": "5e-4"}).rate
            0.0005
        """
        known = [item.name for item in fields(cls)]
        for name in values.keys() - set(known):
            raise ActshiftError(f"There is no setting {name!r}{did_you_mean(name, known)}; see actshift train --help.")
        if values.get("task") is not None:
            from actshift.tasks import get_task

            values = {**get_task(values["task"]).settings, **values}
        return cls(**values)

    @property
    def rate(self) -> float:
        """The peak learning rate: `learning_rate`, or the default of the method and the objective."""
        return self.learning_rate or LEARNING_RATES[self.method] * RATE_SCALE.get(self.objective or "sft", 1)

    @property
    def steers(self) -> bool:
        """True if the run trains a steering adapter, alone or jointly with LoRA."""
        return self.method in STEERS["method"]

    @property
    def two_phases(self) -> bool:
        """True for LoFiT, which first selects attention heads and then trains their shifts."""
        return self.steers and self.adapter == "lofit"

    def total_steps(self, rows: int) -> int:
        """Return the number of optimiser steps of a run over this many training examples.

        >>> TrainSettings(batch_size=8, gradient_accumulation=2).total_steps(100)
        7
        """
        if self.max_steps is not None:
            return self.max_steps
        samples = self.generations if self.objective == "grpo" else 1
        batches = math.ceil(rows * samples / self.batch_size)
        return math.ceil(self.epochs * math.ceil(batches / self.gradient_accumulation))


def require_setting(settings: TrainSettings, name: str) -> Any:
    """Return the setting `name` (model, data or out), or raise ActshiftError if it is missing."""
    if value := getattr(settings, name):
        return value
    flags = "--data or --task" if name == "data" else f"--{name}"
    raise ActshiftError(f"The setting {name} is missing; give {flags}, or {name} in the config file.")


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return the settings in a YAML or JSON file, unchecked. Dashes in their names become underscores.

    Raises:
        ActshiftError: the file does not exist, or is not a mapping.
    """
    return {name.replace("-", "_"): value for name, value in read_mapping(path, "config file").items()}


def check_code(owner: str, settings: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Check that the command line allows the Python code that `settings` from a file would run.

    Raises:
        ActshiftError: `settings` trust remote code or have a reward module:function, and `flags`, the settings of the
            command line, neither trust code nor name rewards.

    >>> check_code("The config file a.yaml", {"reward": "right_answer"}, flags={})
    """
    rewards = settings.get("reward") if "reward" not in flags else None
    rewards = rewards if isinstance(rewards, list | tuple) else [rewards]
    code = [f"the reward {reward!r}" for reward in rewards if isinstance(reward, str) and ":" in reward]
    code += ["trust_remote_code"] if settings.get("trust_remote_code") else []
    if code and not flags.get("trust_remote_code"):
        problem = f"{owner} sets {code[0]}, which runs Python code"
        raise ActshiftError(f"{problem}. If you trust it, give --trust-remote-code on the command line too.")


def command_line(verb: str, settings: Any) -> str:
    """Return the shell command that runs `verb` with `settings`, an object whose fields are its flags.

    >>> command_line("actshift train", TrainSettings(model="gpt2", data="rows.jsonl", out="run", rank=4))
    'actshift train --model gpt2 --data rows.jsonl --out run --rank 4'
    """
    words = [verb]
    for item in fields(settings):
        value, flag = getattr(settings, item.name), item.name.replace("_", "-")
        if value == item.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values: Any = value if isinstance(value, tuple) else [value]
            words += [f"--{flag} {shlex.quote(str(element))}" for element in values]
    return " ".join(words)
