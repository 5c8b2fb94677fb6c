"""Each method's best learning rate on each task: `python -m benchmarks.rates` looks for them, and writes rates.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from actshift.files import write_whole
from benchmarks.learning import MOST, Run, Start, Task, race, tasks
from benchmarks.starts import FULL, STARTS

FILE = Path(__file__).parent / "rates.json"
SEED = 0
FIRST, FIRST_OF_FULL = -5, -7
"""The half-decades that a search begins at: 3e-3, and 3e-4 where every weight is trained."""


def rate_of(half_decade: int) -> float:
    """Return …, 1e-3, 3e-3, 1e-2, …"""
    return float(f"{(1, 3)[half_decade % 2]}e{half_decade // 2}")


def search(task: Task, start: Start, first: int) -> dict[int, Run]:
    """Return the runs of four half-decades, and of as many more as bring the best one between two others.

    A run is stopped at twice the steps of the best one so far.
    """
    runs: dict[int, Run] = {}
    wanted = [first, first + 1, first - 1, first + 2]
    while wanted:
        for one in wanted:
            least = min((run.steps for run in runs.values() if run.steps), default=MOST)
            runs[one] = race(task, start, rate_of(one), SEED, min(MOST, 2 * least))
        wanted = [one for one in (best(runs) - 1, best(runs) + 1) if one not in runs]
    return runs


def best(runs: dict[int, Run]) -> int:
    """Return the half-decade that needs the fewest steps; of several, the one of the lowest loss."""
    return min(runs, key=lambda one: (runs[one].steps or math.inf, runs[one].loss))


def found(task: Task, name: str) -> dict[str, Any]:
    """Return the best rate of a method and the steps at each of its grid, ready for JSON."""
    runs = search(task, STARTS[name], FIRST_OF_FULL if name == FULL else FIRST)
    grid = [
        {"rate": rate_of(one), "steps": run.steps, "looked": run.looked, "loss": round(run.loss, 4)}
        for one, run in sorted(runs.items())
    ]
    return {"rate": rate_of(best(runs)), "grid": grid}


def main() -> None:
    """Look for all of them."""
    torch.set_num_threads(1)
    rates: dict[str, dict[str, Any]] = {}
    for task in tasks():
        for name in STARTS:
            rates.setdefault(task.name, {})[name] = found(task, name)
            print(task.name, name, rates[task.name][name], flush=True)
    write_whole(FILE, json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
