"""The settings of a training run. Light to import: the command line is generated from them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from actshift.errors import ActshiftError, did_you_mean
from actshift.files import read_mapping
from actshift.training.setting_fields import check_fields, names_in_source, setting

WHAT, SHIFT, WEIGHTS, TRAINING, MACHINE = (
    "Model and data",
    "Steering adapter",
    "LoRA and joint training",
    "Training",
    "Machine",
)
REWARD = "Preferences and rewards"
ADAPTER = "Options of single adapters"
"""The panel of settings that only some adapters have, under the names of the adapters' own fields."""
LEARNING_RATES = {"steering": 2e-3, "lora": 3e-4, "full": 2e-5, "joint": 2e-4}
"""The middle of the paper's learning rate grid for each method."""
RATE_SCALE = {"dpo": 0.05, "grpo": 0.05}
"""Factor on the default learning rate by objective: TRL trains full models at 1e-6 for these, and sft uses 2e-5."""

_HERE = Path(__file__).parent
_KINDS = names_in_source(_HERE.parent / "adapters", r'^    kind\b.*= "(\w+)"')
_PHASES_OF_LOFIT = ("head_scale", "head_vector")
ADAPTERS = (*(kind for kind in _KINDS if kind not in _PHASES_OF_LOFIT), "lofit")
SITES = re.findall(r"\w+", "".join(names_in_source(_HERE.parent / "sites", r"^Site = Literal\[([^\]]+)\]")))
OBJECTIVES = names_in_source(_HERE / "objectives", r'^    name\b.*= "(\w+)"')
OBJECTIVE_SUMMARIES = names_in_source(_HERE / "objectives", r'^    summary\b.*= "(.+)"')
REWARDS = names_in_source(_HERE / "rewards.py", r"^@register_reward\ndef (\w+)")

STEERS = {"method": ("steering", "joint")}
LORA = {"method": ("lora", "joint")}
JOINT = {"method": ("joint",)}
RULE = {**JOINT, "orthogonality": ("read", "write", "both")}
LOFIT = {"method": ("steering",), "adapter": ("lofit",)}
ENDS = {"positions": ("ends",)}
GRPO = {"objective": ("grpo",)}


@dataclass(frozen=True)
class TrainSettings:
    """The model, the data and the hyperparameters of a training run.

    The defaults are the paper's protocol for steering (arXiv 2603.00425). `fit` reads only the settings of the
    optimisation; `train` also reads `model`, `data` and `out`.

    Raises:
        ActshiftError: a value has the wrong type or is out of its range, or a setting has no effect with the
            chosen method.

    Example:
        >>> TrainSettings(model="gpt2", data="rows.jsonl", out="run").rate
        0.002
    """

    model: str | None = setting(WHAT, None, "Base model: a folder or a Hugging Face id.")
    data: str | None = setting(
        WHAT, None, "Training rows: a .jsonl, .json, .csv or .parquet file, or the id of a Hugging Face dataset."
    )
    task: str | None = setting(
        WHAT, None, "Task to train on instead of --data: a name from 'actshift tasks', or the path of a .yaml file."
    )
    data_dir: str | None = setting(
        WHAT, None, "Folder with the task's rows as DIR/TASK/SPLIT.jsonl.gz; by default they come from the hub."
    )
    out: str | None = setting(WHAT, None, "Output folder; it must be new or empty.")
    eval_data: str | None = setting(
        WHAT,
        None,
        "Evaluation rows: a file, or the validation split of a dataset id. The checkpoint with the best score is kept.",
    )
    eval_share: float = setting(
        WHAT, 0.0, "Share of the training rows to use for evaluation instead.", least=0, below=1
    )
    method: Literal["steering", "lora", "joint", "full"] = setting(
        WHAT, "steering", "Weights to train: a steering adapter, LoRA, both of them (joint), or every weight (full)."
    )
    objective: str | None = setting(
        WHAT,
        None,
        "Training objective: "
        + ", ".join(f"{name} ({text})" for name, text in zip(OBJECTIVES, OBJECTIVE_SUMMARIES, strict=True))
        + ". By default sft for a causal language model; for an encoder it follows from the columns of the rows.",
        choices=OBJECTIVES,
    )
    chat: bool = setting(WHAT, True, "Render a task's rows with the tokenizer's chat template, if it has one.")

    adapter: str = setting(SHIFT, "low_rank", f"Kind of adapter: {', '.join(ADAPTERS)}.", applies_to=STEERS)
    site: str | None = setting(
        SHIFT,
        None,
        f"Activation to steer: {', '.join(SITES)}. By default attention_heads for adapters that steer heads, "
        "post_block for all others.",
        applies_to=STEERS,
    )
    layers: tuple[int | str, ...] | None = setting(
        SHIFT,
        None,
        "Blocks to steer: an index, or a Python slice such as 4:8 or -4: (repeatable; all by default).",
        applies_to=STEERS,
    )
    positions: Literal["all", "prompt", "generated", "last", "ends"] = setting(
        SHIFT,
        "all",
        "Tokens to steer: all, the prompt, the generated tokens, the last token of the prompt, or both ends of it.",
        applies_to=STEERS,
    )
    interventions: str | None = setting(
        SHIFT,
        None,
        "File with sites, layers and ranks, written by locate --budget --out; it replaces the settings above.",
        applies_to=STEERS,
    )
    start: str | None = setting(
        SHIFT,
        None,
        "Saved adapter of the same kind to start from: a folder or an id, for example from actshift vector.",
        applies_to=STEERS,
    )
    first_tokens: int = setting(
        SHIFT, 7, "Number of steered tokens at the start of the prompt.", least=0, applies_to=ENDS
    )
    last_tokens: int = setting(SHIFT, 7, "Number of steered tokens at the end of the prompt.", least=0, applies_to=ENDS)

    rank: int = setting(ADAPTER, 8, "Rank r of a low-rank adapter.", applies_to=STEERS)
    activation: str = setting(
        ADAPTER, "silu", "Nonlinearity of low_rank: silu, gelu, relu, tanh, or none.", applies_to=STEERS
    )
    bias: bool = setting(ADAPTER, False, "Add a bias to both maps of low_rank.", applies_to=STEERS)
    init: str = setting(
        ADAPTER,
        "default",
        "Initial W_down of low_rank: default, reference (the paper's scale), or gradient (of the loss on the rows).",
        applies_to=STEERS,
    )
    l0: float = setting(ADAPTER, 4e-5, "Weight of the penalty on open gates in jola.", least=0, applies_to=STEERS)
    l1: float = setting(ADAPTER, 1e-3, "Weight of the penalty on the scales in lofit.", least=0, applies_to=STEERS)
    lofit_heads: int | None = setting(
        ADAPTER, None, "Number of attention heads that lofit keeps over all blocks.", least=1, applies_to=LOFIT
    )
    lofit_share: float = setting(
        ADAPTER,
        0.1,
        "Share of all heads that lofit keeps, unless lofit_heads is set.",
        above=0,
        most=1,
        applies_to=LOFIT,
    )
    lofit_steps: float = setting(
        ADAPTER, 0.5, "Share of the steps in which lofit selects its heads.", above=0, below=1, applies_to=LOFIT
    )

    lora_r: int = setting(WEIGHTS, 8, "Rank of LoRA.", least=1, applies_to=LORA)
    lora_alpha: float = setting(WEIGHTS, 16, "LoRA's α; updates are scaled by α / rank.", above=0, applies_to=LORA)
    lora_dropout: float = setting(WEIGHTS, 0.0, "Dropout on LoRA's input.", least=0, below=1, applies_to=LORA)
    lora_targets: tuple[str, ...] | None = setting(
        WEIGHTS, None, "Linear layers with LoRA, such as q_proj (repeatable; all by default).", applies_to=LORA
    )
    lora_learning_rate: float | None = setting(
        WEIGHTS,
        None,
        "Peak learning rate of LoRA in joint training; by default learning_rate.",
        above=0,
        applies_to=JOINT,
    )
    orthogonality: Literal["read", "write", "both", "none"] = setting(
        WEIGHTS, "read", "Side of the adapter that is kept orthogonal to LoRA's output in its block.", applies_to=JOINT
    )
    orthogonality_every: str = setting(
        WEIGHTS, "1", "Optimiser steps between enforcements of the constraint, or 'epoch'.", applies_to=RULE
    )
    orthogonality_penalty: float | None = setting(
        WEIGHTS, None, "Weight of a soft penalty that replaces the constraint.", above=0, applies_to=RULE
    )

    reward: tuple[str, ...] | None = setting(
        REWARD,
        None,
        f"Reward for grpo: {', '.join(REWARDS)}, or a Python function as module:function (repeatable; rewards are "
        "summed).",
        applies_to=GRPO,
    )
    scorer: str | None = setting(
        REWARD,
        None,
        "Scorer of right_answer and right_form; by default the scorer of the task, or exact match.",
        applies_to=GRPO,
    )
    beta: float | None = setting(
        REWARD,
        None,
        "Penalty for moving away from the initial model: β of dpo (default 0.1), or the KL weight of grpo (default 0).",
        least=0,
        applies_to={"objective": ("dpo", "grpo")},
    )
    generations: int = setting(REWARD, 8, "Completions that grpo samples per prompt.", least=2, applies_to=GRPO)
    max_new_tokens: int | None = setting(
        REWARD, None, "Maximum tokens of a completion; by default the task's limit, or 64.", least=1, applies_to=GRPO
    )
    temperature: float = setting(REWARD, 1.0, "Sampling temperature of the completions.", above=0, applies_to=GRPO)

    learning_rate: float | None = setting(
        TRAINING,
        None,
        "Peak learning rate of AdamW; by default the middle of the paper's grid: "
        + ", ".join(f"{rate:g} for {method}" for method, rate in LEARNING_RATES.items())
        + ", divided by 20 for dpo and grpo.",
        above=0,
    )
    epochs: float = setting(TRAINING, 1.0, "Passes over the data.", above=0)
    max_steps: int | None = setting(TRAINING, None, "Optimiser steps; overrides epochs.", least=1)
    batch_size: int = setting(TRAINING, 8, "Rows per forward pass.", least=1)
    gradient_accumulation: int = setting(TRAINING, 2, "Forward passes per optimiser step.", least=1)
    warmup: float = setting(TRAINING, 0.03, "Share of the steps for the learning rate warm-up.", least=0, below=1)
    weight_decay: float = setting(TRAINING, 0.0, "Weight decay of AdamW.", least=0)
    schedule: Literal["linear", "cosine", "constant"] = setting(
        TRAINING, "linear", "Learning rate schedule after the warm-up."
    )
    max_length: int = setting(
        TRAINING,
        512,
        "Maximum tokens of a row (for grpo, of its prompt). Longer rows are skipped; plain text is split into pieces.",
        least=2,
    )
    group_by_length: bool = setting(
        TRAINING,
        False,
        "Group rows of similar length to reduce padding. Except for embed, every epoch then has the same batches.",
    )
    seed: int = setting(TRAINING, 0, "Seed of the initial weights and of the order of the rows.", least=0)
    save_steps: int | None = setting(
        TRAINING, None, "Steps between checkpoints and evaluations; by default a tenth of the run.", least=1
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        MACHINE, "auto", "Compute precision; auto is bf16 on a GPU with hardware support, else fp32."
    )
    gradient_checkpointing: bool = setting(MACHINE, False, "Recompute activations in the backward pass to save memory.")
    cache_prefix: Literal["off", "memory", "disk"] = setting(
        MACHINE,
        "off",
        "Cache the output of the blocks below the first steered one for each batch, in memory or on the disk of --out. "
        "Results are bit-identical. Needs --group-by-length.",
        applies_to={"method": ("steering",)},
    )
    cache_limit: float = setting(
        MACHINE,
        4.0,
        "Maximum size of this cache in GiB; batches beyond it are recomputed.",
        above=0,
        applies_to={"cache_prefix": ("memory", "disk")},
    )
    trust_remote_code: bool = setting(
        MACHINE, False, "Run Python code that comes with the model; use only if you trust its author."
    )

    def __post_init__(self) -> None:
        """Check every value and convert it to its declared type."""
        check_fields(self)
        for item in fields(self):
            for name, allowed in item.metadata["applies_to"].items():
                if getattr(self, item.name) != item.default and getattr(self, name) not in allowed:
                    raise ActshiftError(
                        f"{item.name} has no effect when {name} is {getattr(self, name)}; leave it out, or use {name} "
                        f"{' or '.join(allowed)}."
                    )

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
        for name in values:
            if name not in known:
                raise ActshiftError(
                    f"There is no setting {name!r}{did_you_mean(name, known)}; 'actshift train --help' lists them."
                )
        return cls(**{**_task_settings(values.get("task")), **values})

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


def require_setting(settings: TrainSettings, name: str) -> str:
    """Return the setting `name` (model, data or out).

    Raises:
        ActshiftError: the setting is missing.
    """
    value = getattr(settings, name)
    if not value:
        flags = "--data or --task" if name == "data" else f"--{name}"
        raise ActshiftError(f"The setting {name} is missing; give {flags}, or {name} in the config file.")
    return value


def _task_settings(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    from actshift.tasks import get_task

    return dict(get_task(name).settings)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return the settings in a YAML or JSON file, unchecked. Dashes in their names become underscores.

    Raises:
        ActshiftError: there is no such file, or it is not a mapping.
    """
    return {name.replace("-", "_"): value for name, value in read_mapping(path, "config file").items()}


def command_line(verb: str, settings: Any) -> str:
    """Return the shell command that runs `verb` with `settings`, an object whose fields are its flags.

    >>> from actshift.training.settings import TrainSettings
    >>> command_line("actshift train", TrainSettings(model="gpt2", data="rows.jsonl", out="run", rank=4))
    'actshift train --model gpt2 --data rows.jsonl --out run --rank 4'
    """
    words = [verb]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default:
            flag = f"--{item.name.replace('_', '-')}"
            words += [_flag(flag, element) for element in (value if isinstance(value, tuple) else [value])]
    return " ".join(words)


def _flag(flag: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    return f"{flag} {shlex.quote(str(value))}"
