"""Compare rules between the halves of a joint adapter: ``python scripts/joint_rules.py --out DIR``.

    python scripts/joint_rules.py --out DIR [--model FOLDER --rows FOLDER]

Each cell trains one rule with one seed and writes its record to docs/results/joint_rules/. A cell with a record is not
repeated, so the same command continues an interrupted study; it ends by writing docs/results/joint_rules.md. FOLDER of
--model is SmolLM2-135M-Instruct as scripts/real_models.py writes it, and FOLDER of --rows has the ListOps rows of
scripts/real_rows.py. Without them only the cells of the bundled model run. DIR keeps the leading directions of the
shifts of each cell, for comparisons between cells.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import joint_shifts as shifts
import torch
from belongings import make_rows
from encoder_rows import read_rows
from joint_rules_page import RECORDS, choose_weight, read_record, write_page

from actshift.compare.provenance import provenance
from actshift.data import check_rows
from actshift.demo import load_base
from actshift.demo.run import MAX_NEW_TOKENS, one_thread
from actshift.evaluation import evaluate
from actshift.evaluation.choices import best_choices
from actshift.loading import load_model
from actshift.training import TrainSettings, fit
from actshift.training.build import adapt
from actshift.training.configs import AdapterSpec

RULES = {
    "lora": {"method": "lora"},
    "read": {"method": "joint"},
    "write": {"method": "joint", "orthogonality": "write"},
    "functional": {"method": "joint", "orthogonality": "none"},
    "free": {"method": "joint", "orthogonality": "none"},
    "both": {"method": "joint", "orthogonality": "both"},
    "read-x4": {"method": "joint"},
    "read-x0.25": {"method": "joint"},
}
"""The settings of each rule. "write" and "both" cover the LoRA of both output maps of a block."""
STEERING_SCALE = {"read-x4": 4.0, "read-x0.25": 0.25}
WEIGHTS = (0.01, 0.1, 1.0)  # of the functional rule, chosen on validation rows
SEEDS, PILOT_SEED = 5, 100
MEASURED_ROWS = 32
HALF_EVERY = 4  # of the test rows, one scores each half alone
Row = dict[str, Any]
Score = Callable[[Any, Any, Sequence[Row]], list[bool]]


@dataclass(frozen=True)
class Task:
    """A model, its rows, and the optimisation that all rules share."""

    load: Callable[[], tuple[Any, Any]]
    rows: Callable[[str], list[Row]]  # of a split
    score: Score
    steering_rate: float
    lora_rate: float
    optimisation: dict[str, Any]


def exact_answers(model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[bool]:
    """Return whether the greedy completion of each row is its reference."""
    return [p.correct for p in evaluate(model, tokenizer, list(rows), MAX_NEW_TOKENS, 250).predictions]


def likely_choices(model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[bool]:
    """Return whether the most likely of each row's choices is its completion."""
    chosen = best_choices(model, tokenizer, rows, 32) or []
    return [choice == row["completion"] for choice, row in zip(chosen, rows, strict=True)]


def tasks(model: Path | None, rows: Path | None) -> dict[str, Task]:
    """Return the tasks by name. The task of SmolLM2 needs both folders."""
    shared = {"gradient_accumulation": 1, "group_by_length": True, "schedule": "linear", "warmup": 0.03}
    found = {
        "toy": Task(load_base, make_rows, exact_answers, 5e-3, 3e-3, {"batch_size": 32, "max_steps": 200, **shared})
    }
    if model and rows:
        limits = {"train": 500, "validation": 300, "test": 500}

        def listops(split: str) -> list[Row]:
            return read_rows(rows / "listops" / f"{split}.jsonl", limits[split])

        def load() -> tuple[Any, Any]:
            return load_model(model, dtype="float32", device="cpu")

        found["smollm2"] = Task(load, listops, likely_choices, 2e-3, 2e-3, {"batch_size": 8, **shared})
    return found


def train(task: Task, rule: str, seed: int, weight: float | None) -> tuple[Any, Any]:
    """Return the model of a cell and its tokenizer."""
    values: dict[str, Any] = {**task.optimisation, **RULES[rule], "seed": seed, "learning_rate": task.lora_rate}
    if rule != "lora":
        values["learning_rate"] = task.steering_rate * STEERING_SCALE.get(rule, 1.0)
        values["lora_learning_rate"] = task.lora_rate
    settings = TrainSettings(**values)
    model, tokenizer = task.load()
    model = adapt(model, AdapterSpec.from_settings(settings))
    if rule in ("write", "both"):
        shifts.constrain_to_both_maps(model)
    rows = [{name: row[name] for name in ("prompt", "completion")} for row in task.rows("train")]
    with nullcontext() if weight is None else shifts.penalised_overlap(model, weight):
        fit(model, tokenizer, check_rows(rows, "the task"), settings, title=f"{rule}, seed {seed}")
    return model, tokenizer


def measured_tokens(task: Task, tokenizer: Any) -> tuple[torch.Tensor, int]:
    """Return validation rows of one length as tokens `[rows, length]`, and the length of their prompts."""
    by_length: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
    for row in task.rows("validation"):
        ids = tokenizer(row["prompt"] + row["completion"]).input_ids
        by_length[len(ids), len(tokenizer(row["prompt"]).input_ids)].append(ids)
    (_, prompt), rows = max(by_length.items(), key=lambda item: len(item[1]))
    return torch.tensor(rows[:MEASURED_ROWS]), prompt


def run_cell(name: str, rule: str, seed: int, weight: float | None, out: Path) -> dict[str, Any]:
    """Train and measure one cell, and return its record. Cells of the pilot seed are scored on validation rows."""
    task, start = TASKS[name], time.process_time()
    model, tokenizer = train(task, rule, seed, weight)
    split = "validation" if seed == PILOT_SEED else "test"
    rows = task.rows(split)
    record: dict[str, Any] = {"task": name, "rule": rule, "seed": seed, "weight": weight, "split": split}
    record["correct"] = "".join("01"[right] for right in task.score(model, tokenizer, rows))
    tokens, _ = measured_tokens(task, tokenizer)
    if rule == "lora":
        directions = {"weights": [shifts.leading(shift) for shift in shifts.weights_shifts(model, tokens)]}
    else:
        if split == "test":
            record |= shifts.half_accuracies(model, lambda half: task.score(half, tokenizer, rows[::HALF_EVERY]))
        figures, directions = shifts.redundancy_figures(model, tokens)
        record |= figures
        if rule == "read":
            record["random_writing"] = shifts.overlap_of_random_writing(model, tokens, directions)
    torch.save(directions, out / f"{cell_name(name, rule, seed, weight)}.pt")
    return record | {"cpu_seconds": round(time.process_time() - start, 1)}


def cell_name(name: str, rule: str, seed: int, weight: float | None) -> str:
    """Return the name of a cell's files."""
    pilot = f"-{weight:g}" if seed == PILOT_SEED and weight is not None else ""
    return f"{name}-{rule}{pilot}-{seed}"


def cells() -> Iterator[tuple[str, str, int, float | None]]:
    """Yield the task, rule, seed and penalty weight of every cell: the pilot, then five rules, then the others."""
    for name in TASKS:
        yield from ((name, "functional", PILOT_SEED, weight) for weight in WEIGHTS)
        chosen = choose_weight(name)
        for rules in ([*RULES][:5], [*RULES][5:]):
            for seed in range(SEEDS):
                yield from ((name, rule, seed, chosen if rule == "functional" else None) for rule in rules)


def measure_gradients(name: str, out: Path) -> None:
    """Store the leading directions of the base model's loss gradients, for comparison with the shifts."""
    if not (path := out / f"{name}-gradient.pt").exists():
        model, tokenizer = TASKS[name].load()
        torch.save(shifts.gradient_directions(model, *measured_tokens(TASKS[name], tokenizer)), path)


def cross_overlaps(name: str, out: Path) -> dict[str, float] | None:
    """Return the shift overlaps between cells whose directions are in `out`, or None with fewer than two seeds.

    Of the paper's rule: between the halves of the same run, of two runs, and with a LoRA trained alone; between LoRAs
    trained alone; and of each half with the gradient of the base model.
    """
    paths = [[out / f"{name}-{rule}-{seed}.pt" for rule in ("read", "lora")] for seed in range(SEEDS)]
    cells = [tuple(torch.load(path) for path in pair) for pair in paths if all(path.exists() for path in pair)]
    if len(cells) < 2:
        return None
    joint, alone = [cell for cell, _ in cells], [lora["weights"] for _, lora in cells]
    gradient, overlap = torch.load(out / f"{name}-gradient.pt"), shifts.mean_overlap
    pairs = list(permutations(range(len(cells)), 2))
    return {
        "seeds": len(cells),
        "same_run": fmean(overlap(cell["weights"], cell["activations"]) for cell in joint),
        "other_run": fmean(overlap(joint[i]["weights"], joint[j]["activations"]) for i, j in pairs),
        "lora_alone": fmean(overlap(lora, cell["activations"]) for lora in alone for cell in joint),
        "two_loras": fmean(overlap(alone[i], alone[j]) for i, j in pairs),
        "gradient_weights": fmean(overlap(gradient, cell["weights"]) for cell in joint),
        "gradient_activations": fmean(overlap(gradient, cell["activations"]) for cell in joint),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the directions of the shifts")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2")
    parser.add_argument("--rows", type=Path, help="folder with listops/{train,validation,test}.jsonl")
    arguments = parser.parse_args()
    TASKS.update(tasks(arguments.model, arguments.rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(exist_ok=True)
    warnings.simplefilter("ignore", FutureWarning)
    made = provenance("python scripts/joint_rules.py --out DIR --model FOLDER --rows FOLDER")
    with one_thread():
        for name, rule, seed, weight in cells():
            if read_record(cell_name(name, rule, seed, weight)):
                continue
            record = run_cell(name, rule, seed, weight, arguments.out) | {"made": made}
            path = RECORDS / f"{cell_name(name, rule, seed, weight)}.json"
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(path.name, f"{fmean(map(int, record['correct'])):.1%}", record["cpu_seconds"], flush=True)
        for name in TASKS:
            measure_gradients(name, arguments.out)
            if overlaps := cross_overlaps(name, arguments.out):
                (RECORDS / f"cross-{name}.json").write_text(json.dumps(overlaps, indent=1) + "\n", encoding="utf-8")
    write_page()


TASKS: dict[str, Task] = {}

if __name__ == "__main__":
    main()
