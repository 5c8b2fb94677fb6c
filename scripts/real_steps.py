"""Measure the steps to a loss on SmolLM2: ``python scripts/real_steps.py --out DIR [--model FOLDER]``.

docs/results/steps.md has the protocol. Each cell writes its record to docs/results/steps/. A cell with a record is not
repeated, so the same command continues an interrupted study. It ends by writing the page. DIR keeps the weights of the
screened cells, from which the second round continues. FOLDER is SmolLM2-135M-Instruct as scripts/real_models.py writes
it, and by default that script gets it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from real_rows import listops
from real_steps_page import FIRST_ROUND, PILOT, RECORDS, SHORT, STEPS, promoted, screened, write_page
from torch import Tensor
from torch.nn.functional import cross_entropy

import actshift
from actshift import SteeringConfig, token_batches
from actshift.data.encode import IGNORE_INDEX
from actshift.files import write_atomically
from actshift.loading import load_model
from actshift.training.trainer import LengthGroupedSampler

BATCH, WARMUP, EVERY, SEEDS = 16, 0.03, 12, 5
CURVE_ROWS, VALIDATION_ROWS = 100, 300  # on a curve, and at the end of a run; every row has two tokens to predict
INIT_BATCHES = 4  # for the gradient init
Batch = dict[str, Tensor]

REMEDIES: dict[str, dict[str, Any]] = {
    "default": {},
    "W_up x4": {"up": 4.0},
    "W_up x16": {"up": 16.0},
    "W_up x2, W_down x0.5": {"up": 4.0, "rate": 0.5},
    "W_up x0.5, W_down x2": {"up": 0.25, "rate": 2.0},
    "W_down start x4": {"start": 4.0},
    "gradient init": {"init": "gradient"},
    "no warm-up": {"warmup": 0.0},
    "warm-up 0.15": {"warmup": 0.15},
    "Adam beta2 0.95": {"betas": (0.9, 0.95)},
    "no clipping": {"clip": float("inf")},
    "Adafactor": {"optimizer": "adafactor"},
    "Muon": {"optimizer": "muon", "rate": 5.0},
    "LoRA": {"method": "lora", "rate": 0.5},
}
"""The remedies. `up` multiplies the rate of W_up, `start` the initial W_down, and `rate` both rates.

Muon's update has a root mean square of 0.2 where Adam's has up to 1, so its rate is 5 times as high. A scale of the
shift, as in rsLoRA, is the same as `up`: Adam does not depend on the scale of a gradient, and W_up starts at 0.
"""
RATES = (2e-3, 5e-3)
ONE_RATE = ("no warm-up", "warm-up 0.15", "Adam beta2 0.95", "no clipping")  # these do not move the best rate much


@dataclass(frozen=True)
class Cell:
    """A remedy with a peak rate (of the default; `rate` of the remedy multiplies it), a seed, and a schedule."""

    remedy: str
    rate: float
    seed: int
    steps: int = STEPS

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"{self.remedy.replace(',', '').replace(' ', '_')}-{self.rate:g}-seed-{self.seed}-steps-{self.steps}"


def screening() -> list[Cell]:
    """Return the cells of the first round."""
    rates = {remedy: RATES[:1] if remedy in ONE_RATE else RATES for remedy in REMEDIES}
    rates["Muon"] = (8e-4, *RATES)  # both others were too high
    return [Cell(remedy, rate, PILOT) for remedy in REMEDIES for rate in rates[remedy]]


def batches_of(rows: Sequence[Any], tokenizer: Any, steps: int, seed: int) -> list[Batch]:
    """Return the batches of a run: rows drawn without replacement, in groups of similar length as in the study."""
    drawn = random.Random(seed).sample(rows, STEPS * BATCH)
    order = list(LengthGroupedSampler([len(row["prompt"]) for row in drawn], BATCH, seed))
    return token_batches([drawn[index] for index in order], tokenizer, BATCH)[:steps]


def loss_of(model: Any, batch: Batch, reduction: str = "mean") -> Tensor:
    """Return the loss of the tokens to predict. Logits are only computed at positions with such a token."""
    targets = batch["labels"][:, 1:]
    positions = (targets != IGNORE_INDEX).any(0).nonzero()[:, 0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, logits_to_keep=positions, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), targets[:, positions].flatten(), reduction=reduction)


@torch.no_grad()
def validation_loss(model: Any, batches: Sequence[Batch]) -> float:
    """Return the mean loss over all predicted tokens."""
    model.eval()
    tokens = sum(int((batch["labels"][:, 1:] != IGNORE_INDEX).sum()) for batch in batches)
    return sum(loss_of(model, batch, "sum").item() for batch in batches) / tokens


def prepare(model: Any, options: dict[str, Any], batches: list[Batch]) -> Any:
    """Add the adapter of a remedy to the model."""
    if options.get("method") == "lora":
        return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    init = options.get("init", "default")
    model = actshift.attach(model, SteeringConfig(rank=8, init=init))
    if init == "gradient":
        actshift.gradient_init(model, batches[:INIT_BATCHES])
    with torch.no_grad():
        for name, parameter in trained(model):
            if ".down." in name:
                parameter.mul_(options.get("start", 1.0))
    return model


def trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def build_optimizer(model: Any, options: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    """Return the optimiser of a remedy; its groups keep their peak rate as `peak`."""
    groups: list[dict[str, Any]] = []
    for is_up in (False, True):
        parameters = [parameter for name, parameter in trained(model) if (".up." in name) == is_up]
        peak = rate * options.get("rate", 1.0) * (options.get("up", 1.0) if is_up else 1.0)
        groups += [{"params": parameters, "lr": peak, "peak": peak}] if parameters else []
    match options.get("optimizer", "adam"):
        case "muon":
            return torch.optim.Muon(groups, lr=rate, weight_decay=0, adjust_lr_fn="match_rms_adamw")
        case "adafactor":
            from transformers import Adafactor

            return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
        case _:
            return torch.optim.AdamW(groups, lr=rate, weight_decay=0, betas=options.get("betas", (0.9, 0.999)))


def factor(step: int, steps: int, warmup: float) -> float:
    """Return the share of the peak rate at a step (from 0): the trainer's linear schedule.

    >>> [factor(step, 5, 0.4) for step in range(5)]
    [0.3333333333333333, 0.6666666666666666, 1.0, 0.6666666666666666, 0.3333333333333333]
    """
    warm = -int(-steps * warmup // 1)
    return (step + 1) / (warm + 1) if step < warm else (steps - step) / (steps - warm)


@dataclass
class Study:
    """The rows, the tokenizer and the folders of the study."""

    model: Path
    out: Path

    def __post_init__(self) -> None:
        self.tokenizer = load_model(self.model, dtype="float32", device="cpu")[1]
        keys = ("prompt", "completion")
        self.train, held_out, _ = [[{key: row[key] for key in keys} for row in split] for split in listops()]
        by_length = partial(sorted, key=lambda row: len(row["prompt"]))
        batch = partial(token_batches, tokenizer=self.tokenizer, batch_size=25)
        self.curve, self.rest = (
            batch(by_length(held_out[:CURVE_ROWS])),
            batch(by_length(held_out[CURVE_ROWS:VALIDATION_ROWS])),
        )

    def run(self, cell: Cell, until: int | None = None) -> dict[str, Any]:
        """Train a cell up to step `until` (by default to its end), write its record and return it."""
        path, until = RECORDS / f"{cell.name}.json", until or cell.steps
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if len(record.get("train", ())) >= until:
            return record
        options, began = REMEDIES[cell.remedy], time.process_time()
        torch.manual_seed(cell.seed)
        batches = batches_of(self.train, self.tokenizer, cell.steps, cell.seed)
        model = prepare(load_model(self.model, dtype="float32", device="cpu")[0], options, batches)
        optimizer = build_optimizer(model, options, cell.rate)
        state = self.out / f"{cell.name}.pt"
        if record and state.exists():
            saved = torch.load(state)
            model.load_state_dict(saved["weights"], strict=False)
            optimizer.load_state_dict(saved["optimizer"])
        else:
            identity = {"remedy": cell.remedy, "rate": cell.rate, "seed": cell.seed, "steps": cell.steps}
            record = {**identity, "train": [], "norm": [], "validation": {}, "seconds": 0.0}
        for step in range(len(record["train"]), until):
            self.step(model, optimizer, batches[step], factor(step, cell.steps, options.get("warmup", WARMUP)), record)
            on_curve = cell.seed == PILOT and step + 1 > FIRST_ROUND and (step + 1) % EVERY == 0
            if on_curve or step + 1 == until:
                record["validation"][str(step + 1)] = round(validation_loss(model, self.curve), 4)
        if until == cell.steps:
            record["final"] = round(validation_loss(model, [*self.curve, *self.rest]), 4)
        else:
            self.out.mkdir(parents=True, exist_ok=True)
            weights = {name: parameter.detach() for name, parameter in trained(model)}
            torch.save({"weights": weights, "optimizer": optimizer.state_dict()}, state)
        record["seconds"] = round(record["seconds"] + time.process_time() - began, 1)
        write_atomically(path, json.dumps(record) + "\n")
        print(cell.name, record["validation"], record.get("final"), record["seconds"], flush=True)
        return record

    def step(
        self, model: Any, optimizer: torch.optim.Optimizer, batch: Batch, share: float, record: dict[str, Any]
    ) -> None:
        """Take one optimiser step and note its loss and the norm of its gradient."""
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        loss = loss_of(model, batch)
        loss.backward()
        clip = REMEDIES[record["remedy"]].get("clip", 1.0)
        norm = torch.nn.utils.clip_grad_norm_([parameter for _, parameter in trained(model)], clip)
        optimizer.step()
        optimizer.zero_grad()
        record["train"].append(round(loss.item(), 4))
        record["norm"].append(round(norm.item(), 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    if not arguments.model:
        from real_models import model_folder

        arguments.model = model_folder("smollm2")
    torch.set_num_threads(1)
    RECORDS.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.model, arguments.out)
    for cell in screening():
        study.run(cell, FIRST_ROUND)
    for remedy, rate in promoted():
        study.run(Cell(remedy, rate, PILOT))
    default, lora, *remedies = screened()
    best, *others = remedies
    for seed in range(SEEDS):
        study.run(Cell(*default, seed))
        study.run(Cell(*best, seed, SHORT))
    rest = [Cell(*choice, seed, SHORT) for choice in others for seed in range(SEEDS)]
    for cell in rest + [Cell(*lora, seed) for seed in range(SEEDS)]:
        study.run(cell)
    write_page()


if __name__ == "__main__":
    main()
