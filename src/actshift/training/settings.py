"""Every setting of a training run; light to import, since the command line is read off it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from actshift.errors import ActshiftError, did_you_mean
from actshift.files import read_mapping
from actshift.training.setting_fields import check_fields, setting

WHAT, SHIFT, WEIGHTS, TRAINING, MACHINE = "What", "The shift", "LoRA, and both together", "Training", "The machine"
REWARD = "Preferences and rewards"
ADAPTER = "The shift, by its kind"
"""The panel of what only some adapters have: the settings there are the adapters' own fields, by the same names."""
LEARNING_RATES = {"steering": 2e-3, "lora": 3e-4, "full": 2e-5, "joint": 2e-4}
"""The middle of the paper's grid of each method."""
RATE_SCALE = {"dpo": 0.05, "grpo": 0.05}
"""What these objectives multiply a rate by: TRL trains every weight at 1e-6 for them, and we at 2e-5 for sft."""

STEERS = {"method": ("steering", "joint")}
LORA = {"method": ("lora", "joint")}
JOINT = {"method": ("joint",)}
RULE = {**JOINT, "orthogonality": ("read", "write", "both")}
LOFIT = {"method": ("steering",), "adapter": ("lofit",)}
ENDS = {"positions": ("ends",)}
GRPO = {"objective": ("grpo",)}


@dataclass(frozen=True)
class TrainSettings:
    """What is trained, on what, and how; the defaults are the paper's protocol (arXiv 2603.00425) for steering.

    `fit` reads only what concerns the optimisation; model, data and out are for `train`.

    Raises ActshiftError for a value of the wrong type or out of its range, and for a setting that says nothing
    about the chosen method.

    >>> TrainSettings(model="gpt2", data="rows.jsonl", out="run").rate
    0.002
    """

    model: str | None = setting(WHAT, None, "Base model: a folder or a Hugging Face id.")
    data: str | None = setting(WHAT, None, "Rows to train on: a .jsonl, .json, .csv or .parquet file, or a dataset id.")
    task: str | None = setting(
        WHAT, None, "Task to train on in place of --data: a name that 'actshift tasks' lists, or one's own .yaml file."
    )
    data_dir: str | None = setting(
        WHAT, None, "Folder with the task's rows as DIR/TASK/SPLIT.jsonl.gz; the hub if left out."
    )
    out: str | None = setting(WHAT, None, "Folder for the result; it must be new or empty.")
    eval_data: str | None = setting(
        WHAT, None, "Rows to evaluate on, a file or a dataset id (its validation split); the best state is then kept."
    )
    eval_share: float = setting(WHAT, 0.0, "Share of the training rows to hold out for evaluation.", least=0, below=1)
    method: Literal["steering", "lora", "joint", "full"] = setting(
        WHAT, "steering", "What is trained: a shift of activations, LoRA, joint (both of them), or full (every weight)."
    )
    objective: Literal["sft", "dpo", "grpo", "classify", "tag", "embed"] | None = setting(
        WHAT,
        None,
        "What it is trained to do: sft (write the completions), dpo (prefer one of two), grpo (earn a reward), "
        "classify (texts), tag (words) or embed (pairs of texts near each other); if left out, sft for a causal "
        "language model, and for an encoder what its rows hold.",
    )
    chat: bool = setting(WHAT, True, "Render a task's rows by the tokenizer's chat template, where it has one.")

    adapter: str = setting(
        SHIFT, "low_rank", "The shift: low_rank, vector, loreft, noreft, direft, jola or lofit.", of=STEERS
    )
    site: str | None = setting(
        SHIFT,
        None,
        "Where to shift: post_block, post_mlp, post_attention or attention_heads; if left out, the heads for the "
        "adapters that live there, and post_block for all others.",
        of=STEERS,
    )
    layers: tuple[int | str, ...] | None = setting(
        SHIFT,
        None,
        "Blocks to steer: an index, or a Python slice such as 4:8 or -4: (repeatable; all if left out).",
        of=STEERS,
    )
    positions: Literal["all", "prompt", "generated", "last", "ends"] = setting(
        SHIFT,
        "all",
        "Tokens to steer: all, the prompt, generated ones, the prompt's last one, or both ends of the prompt.",
        of=STEERS,
    )
    interventions: str | None = setting(
        SHIFT, None, "File of sites, layers and ranks, as locate --budget --out writes; in place of these.", of=STEERS
    )
    start: str | None = setting(
        SHIFT,
        None,
        "Saved adapter of this kind to begin at, a folder or an id, such as actshift vector writes.",
        of=STEERS,
    )
    first_tokens: int = setting(SHIFT, 7, "How many tokens the ends have at the start of the prompt.", least=0, of=ENDS)
    last_tokens: int = setting(SHIFT, 7, "How many tokens they have at its end.", least=0, of=ENDS)

    rank: int = setting(ADAPTER, 8, "Rank r of a shift of low rank.", of=STEERS)
    activation: str = setting(
        ADAPTER, "silu", "low_rank's nonlinearity: silu, gelu, relu, tanh, or none for a linear one.", of=STEERS
    )
    bias: bool = setting(ADAPTER, False, "Give both maps of low_rank a bias.", of=STEERS)
    init: str = setting(
        ADAPTER,
        "default",
        "Its W_down at the start: default, reference (the paper's scale), or gradient (where the rows' loss falls).",
        of=STEERS,
    )
    l0: float = setting(ADAPTER, 4e-5, "Weight of jola's penalty on open gates.", least=0, of=STEERS)
    l1: float = setting(ADAPTER, 1e-3, "Weight of lofit's penalty on its scales.", least=0, of=STEERS)
    lofit_heads: int | None = setting(
        ADAPTER, None, "Heads that LoFiT keeps, in all blocks together.", least=1, of=LOFIT
    )
    lofit_share: float = setting(
        ADAPTER, 0.1, "Share of all heads that LoFiT keeps, where lofit_heads is left out.", above=0, most=1, of=LOFIT
    )
    lofit_steps: float = setting(
        ADAPTER,
        0.5,
        "Share of the steps that LoFiT chooses its heads in, before it shifts them.",
        above=0,
        below=1,
        of=LOFIT,
    )

    lora_r: int = setting(WEIGHTS, 8, "Rank of LoRA.", least=1, of=LORA)
    lora_alpha: float = setting(WEIGHTS, 16, "LoRA's α; its update is scaled by α over the rank.", above=0, of=LORA)
    lora_dropout: float = setting(WEIGHTS, 0.0, "Dropout on what LoRA reads.", least=0, below=1, of=LORA)
    lora_targets: tuple[str, ...] | None = setting(
        WEIGHTS, None, "Names of the linear maps with LoRA, such as q_proj (repeatable; all if left out).", of=LORA
    )
    lora_learning_rate: float | None = setting(
        WEIGHTS, None, "Peak learning rate of the LoRA half; that of the other half if left out.", above=0, of=JOINT
    )
    orthogonality: Literal["read", "write", "both", "none"] = setting(
        WEIGHTS, "read", "What of the shift is kept orthogonal to what LoRA writes in its block.", of=JOINT
    )
    orthogonality_every: str = setting(
        WEIGHTS, "1", "When it is enforced: after every so many optimiser steps, or 'epoch'.", of=RULE
    )
    orthogonality_penalty: float | None = setting(
        WEIGHTS, None, "Weight of a soft penalty in place of the constraint.", above=0, of=RULE
    )

    reward: tuple[str, ...] | None = setting(
        REWARD,
        None,
        "What grpo rewards a completion for: right_answer, right_form, or one's own Python function as "
        "module:function (repeatable; they are added up).",
        of=GRPO,
    )
    scorer: str | None = setting(
        REWARD, None, "Who judges right_answer and right_form; the task's scorer, or exact match, if left out.", of=GRPO
    )
    beta: float | None = setting(
        REWARD,
        None,
        "How much it costs to leave the model as it was: DPO's β (0.1 if left out), or the weight of GRPO's KL (0).",
        least=0,
        of={"objective": ("dpo", "grpo")},
    )
    generations: int = setting(REWARD, 8, "Completions that grpo samples for each prompt.", least=2, of=GRPO)
    max_new_tokens: int | None = setting(
        REWARD, None, "Longest of these completions, in tokens; the task's, or 64, if left out.", least=1, of=GRPO
    )
    temperature: float = setting(REWARD, 1.0, "Temperature that they are sampled at.", above=0, of=GRPO)

    learning_rate: float | None = setting(
        TRAINING,
        None,
        "Peak learning rate of AdamW; if left out the middle of the paper's grid: "
        + ", ".join(f"{rate:g} for {method}" for method, rate in LEARNING_RATES.items())
        + ", a twentieth of it for dpo and grpo.",
        above=0,
    )
    epochs: float = setting(TRAINING, 1.0, "Passes over the data.", above=0)
    max_steps: int | None = setting(TRAINING, None, "Optimiser steps, instead of epochs.", least=1)
    batch_size: int = setting(TRAINING, 8, "Rows in one forward pass.", least=1)
    gradient_accumulation: int = setting(TRAINING, 2, "Forward passes in one optimiser step.", least=1)
    warmup: float = setting(TRAINING, 0.03, "Share of the steps over which the learning rate rises.", least=0, below=1)
    weight_decay: float = setting(TRAINING, 0.0, "Weight decay of AdamW.", least=0)
    schedule: Literal["linear", "cosine", "constant"] = setting(TRAINING, "linear", "Learning rate after the warm-up.")
    max_length: int = setting(
        TRAINING,
        512,
        "Longest row in tokens, for grpo its prompt alone; longer ones are left out (text is cut in pieces).",
        least=2,
    )
    group_by_length: bool = setting(
        TRAINING,
        False,
        "Put rows of like length into a batch, which pads less; but for embed the same batches in every epoch.",
    )
    seed: int = setting(TRAINING, 0, "Seed of the initial weights and of the order of rows.", least=0)
    save_steps: int | None = setting(
        TRAINING, None, "Steps between checkpoints, and evaluations; a tenth of the run if left out.", least=1
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(MACHINE, "auto", "auto is bf16 on a GPU that computes in it.")
    gradient_checkpointing: bool = setting(MACHINE, False, "Save memory by computing each block's forward pass twice.")
    cache_prefix: Literal["off", "memory", "disk"] = setting(
        MACHINE,
        "off",
        "Run the blocks below the first steered one once for each batch, and keep what they give in memory or on the "
        "disk of --out; exact, and needs --group-by-length.",
        of={"method": ("steering",)},
    )
    cache_limit: float = setting(
        MACHINE,
        4.0,
        "GiB that these may take; the batches beyond it are computed each time.",
        above=0,
        of={"cache_prefix": ("memory", "disk")},
    )
    trust_remote_code: bool = setting(
        MACHINE, False, "Run code that comes with the model; only if you know its author."
    )

    def __post_init__(self) -> None:
        """Check every value and bring it to its declared type."""
        check_fields(self)
        for item in fields(self):
            for name, wanted in item.metadata["of"].items():
                if getattr(self, item.name) != item.default and getattr(self, name) not in wanted:
                    raise ActshiftError(
                        f"{item.name} says nothing where {name} is {getattr(self, name)}; leave it out, or use {name} "
                        f"{' or '.join(wanted)}."
                    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return the settings that `values` names, the others as their task has them, or at their defaults.

        Raises ActshiftError for an unknown name, with the nearest known one, and for an unknown task.

        >>> TrainSettings.from_mapping({"learning_rate": "5e-4"}).rate
        0.0005
        """
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ActshiftError(
                    f"There is no setting {name!r}{did_you_mean(name, known)}; 'actshift train --help' lists them."
                )
        return cls(**{**_of_task(values.get("task")), **values})

    @property
    def rate(self) -> float:
        """The peak learning rate: the one given, or the method's, by its objective."""
        return self.learning_rate or LEARNING_RATES[self.method] * RATE_SCALE.get(self.objective or "sft", 1)

    @property
    def samples(self) -> int:
        """How many examples one row gives: as many as grpo samples completions of a prompt, else 1."""
        return self.generations if self.objective == "grpo" else 1

    @property
    def steers(self) -> bool:
        """Whether the run trains a shift of activations, alone or beside LoRA."""
        return self.method in STEERS["method"]

    @property
    def two_phases(self) -> bool:
        """Whether the run is LoFiT's, which first chooses attention heads and then shifts them."""
        return self.steers and self.adapter == "lofit"


def _of_task(name: str | None) -> dict[str, Any]:
    """The settings that a task is trained with where the user says nothing."""
    if name is None:
        return {}
    from actshift.tasks import get_task

    return dict(get_task(name).settings)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a YAML or JSON file of settings says, not yet checked; a dash in a name is an underscore.

    Raises ActshiftError where there is no such file or it does not hold names with values.
    """
    return {name.replace("-", "_"): value for name, value in read_mapping(path, "config file").items()}


def command_line(verb: str, settings: Any) -> str:
    """Return the command line on which `verb` runs with `settings`, a class whose fields are its flags.

    >>> from actshift.training.settings import TrainSettings
    >>> command_line("actshift train", TrainSettings(model="gpt2", data="rows.jsonl", out="run", rank=4))
    'actshift train --model gpt2 --data rows.jsonl --out run --rank 4'
    """
    words = [verb]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value == item.default:
            continue
        flag = f"--{item.name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else [value]:
            words.append(_words(flag, one))
    return " ".join(words)


def _words(flag: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    return f"{flag} {shlex.quote(str(value))}"
