"""Search for the best learning rate of each method on each task: `python -m benchmarks.rates` writes rates.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from actshift.files import write_atomically
from benchmarks.learning import MOST, Run, Start, Task, race, tasks
from benchmarks.starts import FULL, STARTS

FILE = Path(__file__).parent / "rates.json"
SEED = 0
FIRST, FIRST_OF_FULL = -5, -7
"""The first half-decade of a search: 3e-3, and 3e-4 for full fine-tuning."""


def rate_of(half_decade: int) -> float:
    """Return the learning rate of a half-decade: …, 1e-3, 3e-3, 1e-2, …"""
    return float(f"{(1, 3)[half_decade % 2]}e{half_decade // 2}")


def search(task: Task, start: Start, first: int) -> dict[int, Run]:
    """Return the runs of four half-decades, and of further ones until the best is not at an edge.

    A run stops at twice the number of steps of the best run so far.
    """
    runs: dict[int, Run] = {}
    pending = [first, first + 1, first - 1, first + 2]
    while pending:
        for half_decade in pending:
            least = min((run.steps for run in runs.values() if run.steps), default=MOST)
            runs[half_decade] = race(task, start, rate_of(half_decade), SEED, min(MOST, 2 * least))
        pending = [neighbour for neighbour in (best(runs) - 1, best(runs) + 1) if neighbour not in runs]
    return runs


def best(runs: dict[int, Run]) -> int:
    """Return the half-decade with the fewest steps. Ties go to the lowest loss."""
    return min(runs, key=lambda half_decade: (runs[half_decade].steps or math.inf, runs[half_decade].loss))


def best_rate(task: Task, name: str) -> dict[str, Any]:
    """Return the best rate of a method and the steps at each rate tried, as JSON-serialisable values."""
    runs = search(task, STARTS[name], FIRST_OF_FULL if name == FULL else FIRST)
    grid = [
        {"rate": rate_of(half_decade), "steps": run.steps, "looked": run.looked, "loss": round(run.loss, 4)}
        for half_decade, run in sorted(runs.items())
    ]
    return {"rate": rate_of(best(runs)), "grid": grid}


def main() -> None:
    """Search the rates of all methods on all tasks."""
    torch.set_num_threads(1)
    rates: dict[str, dict[str, Any]] = {}
    for task in tasks():
        for name in STARTS:
            rates.setdefault(task.name, {})[name] = best_rate(task, name)
            print(task.name, name, rates[task.name][name], flush=True)
    write_atomically(FILE, json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
