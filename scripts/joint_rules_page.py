"""Write the tables of docs/results/joint_rules.md from the records of scripts/joint_rules.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RECORDS = RESULTS / "joint_rules"
PAGE = RESULTS / "joint_rules.md"
START, END = "<!-- tables of scripts/joint_rules.py -->", "<!-- end of tables -->"
TITLES = {"toy": "Belongings, bundled model", "smollm2": "ListOps, SmolLM2-135M-Instruct"}
LABELS = {
    "lora": "LoRA alone",
    "free": "joint, no rule",
    "read": "joint, read (the paper's)",
    "write": "joint, write",
    "both": "joint, both",
    "functional": "joint, functional",
    "read-x4": "joint, read, steering rate × 4",
    "read-x0.25": "joint, read, steering rate × 0.25",
}
FIGURES = {
    "read": "read",
    "write": "write",
    "shift": "shift",
    "cosine": "token cosine",
    "local": "local",
    "local_token": "local, token",
    "seen": "seen",
    "steering_size": "size steering",
    "weights_size": "size LoRA",
}
CROSS = {
    "same_run": "LoRA half and steering half of one run (read)",
    "other_run": "LoRA half and steering half of different runs (read)",
    "lora_alone": "LoRA trained alone and steering half (read)",
    "two_loras": "two LoRAs trained alone",
    "gradient_weights": "gradient of the base model and LoRA half (read)",
    "gradient_activations": "gradient of the base model and steering half (read)",
}
DRAWS = 10_000
Records = dict[str, list[dict[str, Any]]]  # of a task, by rule, sorted by seed


def read_record(cell: str) -> dict[str, Any] | None:
    """Return the record of a cell, or None if the cell has not run."""
    path = RECORDS / f"{cell}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def accuracy(record: dict[str, Any]) -> float:
    """Return the share of correct rows."""
    return record["correct"].count("1") / len(record["correct"])


def all_records() -> list[dict[str, Any]]:
    """Return the records of all cells, in order of their names."""
    paths = sorted(path for path in RECORDS.glob("*.json") if not path.name.startswith("cross-"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def choose_weight(task: str) -> float:
    """Return the largest pilot weight whose validation accuracy is within one standard error of the best one."""
    pilots = [record for record in all_records() if record["task"] == task and record["split"] == "validation"]
    best = max(map(accuracy, pilots))
    error = math.sqrt(best * (1 - best) / len(pilots[0]["correct"]))
    return max(record["weight"] for record in pilots if accuracy(record) >= best - error)


def difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> NDArray[np.float64] | None:
    """Return draws of the difference in accuracy, first rule minus second, over the seeds of both.

    Each draw resamples seeds and test rows, the same ones for both rules.
    """
    by_seed = [
        {record["seed"]: np.array(list(record["correct"]), float) for record in rule} for rule in (first, second)
    ]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < 2:
        return None
    gap = np.stack([by_seed[0][seed] - by_seed[1][seed] for seed in seeds])
    random, (count, rows) = np.random.default_rng(0), gap.shape
    drawn_seeds = random.multinomial(count, [1 / count] * count, DRAWS) / count
    drawn_rows = random.multinomial(rows, [1 / rows] * rows, DRAWS) / rows
    return ((drawn_seeds @ gap) * drawn_rows).sum(axis=1)


def interval(draws: NDArray[np.float64] | None, level: float) -> str:
    """Return the central interval of the draws in percentage points."""
    if draws is None:
        return "–"
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) * 100
    return f"{low:+.1f} to {high:+.1f}"


def accuracy_table(records: Records) -> list[str]:
    """Return the table of test accuracies and of their differences to the paper's rule and to LoRA."""
    lines = [
        "| rule | seeds | test ± sd | minus read | 95 % | 99 % | minus LoRA | 95 % | weights alone | steering alone |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for rule, label in LABELS.items():
        if not (cells := records.get(rule)):
            continue
        values = [accuracy(cell) * 100 for cell in cells]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        row = [label, str(len(cells)), f"{fmean(values):.1f}{spread}"]
        for other, levels in (("read", (0.95, 0.99)), ("lora", (0.95,))):
            draws = difference(cells, records.get(other, [])) if rule != other else None
            row += ["–" if draws is None else f"{draws.mean() * 100:+.1f}", *(interval(draws, each) for each in levels)]
        row += [f"{fmean(c[h] for c in cells):.1%}" if h in cells[0] else "–" for h in ("weights", "activations")]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def overlap_table(records: Records) -> list[str]:
    """Return the table of overlaps and sizes."""
    lines = [f"| rule | {' | '.join(FIGURES.values())} |", f"|---|{'---:|' * len(FIGURES)}"]
    for rule, label in LABELS.items():
        if rule != "lora" and (cells := records.get(rule)):
            row = [f"{fmean(cell[name] for cell in cells):.3f}" for name in FIGURES]
            lines.append(f"| {label} | {' | '.join(row)} |")
    return lines


def tables() -> list[str]:
    """Return the tables of all tasks, with the missing cells."""
    lines: list[str] = []
    everything = all_records()
    for task, title in TITLES.items():
        of_task = [record for record in everything if record["task"] == task]
        records: Records = {}
        for record in sorted((r for r in of_task if r["split"] == "test"), key=lambda r: r["seed"]):
            records.setdefault(record["rule"], []).append(record)
        if not records:
            continue
        pilots = {r["weight"]: f"{accuracy(r):.1%}" for r in of_task if r["split"] == "validation"}
        minutes = sum(record["cpu_seconds"] for record in of_task) / 60
        rows = len(records["lora"][0]["correct"])
        lines += ["", f"### {title}", "", *accuracy_table(records), "", *overlap_table(records), ""]
        lines.append(
            f"{rows:,} test rows, {minutes:.0f} CPU minutes. Weight of the functional rule by validation accuracy: "
            + ", ".join(f"{weight:g}: {value}" for weight, value in sorted(pilots.items()))
            + f"; chosen {choose_weight(task):g}."
        )
        if random := [cell["random_writing"] for cell in records.get("read", [])]:
            lines.append(f"Shift overlap with a random W_up of the same norm: {fmean(random):.3f}.")
        if cross := read_record(f"cross-{task}"):
            lines += ["", f"| shift overlap, {cross['seeds']} seeds | |", "|---|---:|"]
            lines += [f"| {label} | {cross[name]:.3f} |" for name, label in CROSS.items()]
    return lines


def write_page() -> None:
    """Replace the tables in the page, and keep the rest of it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text("\n".join([before + START, *tables(), "", END + after]), encoding="utf-8")


if __name__ == "__main__":
    write_page()
