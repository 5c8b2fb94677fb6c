"""Optimiser steps until the loss on 128 validation rows reaches a target that was set in advance, and the seconds of
the init and of these steps. Training is AdamW without weight decay, 16 rows per step, 10 steps of warm-up and then a
constant rate, the best half-decade for each method ([`python -m benchmarks.rates`](rates.py)). Figures are medians over
seeds that were not used to choose rates. A seed determines the rows, the new head and the initial weights, and is the
same for all methods."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.figure import Figure, Note
from benchmarks.learning import MOST, SST2, Run, Task, bundled, race, tasks
from benchmarks.page import table
from benchmarks.rates import FILE
from benchmarks.starts import REFERENCE, STARTS
from benchmarks.timing import spread

SEEDS = (1, 2, 3)
OVER_REFERENCE = "steps over the reference init"


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Train all methods on the bundled model, and on MiniLM if the rows of SST-2 are available."""
    rates = json.loads(FILE.read_text())
    if quick:
        task = bundled()
        yield from races(replace(task, target=8.0), rates[task.name], SEEDS[:1])
        return
    for task in tasks():
        yield from races(task, rates[task.name], SEEDS)
        yield Note(grids(task, rates[task.name]))
    if not SST2.is_dir():
        yield Note(f"MiniLM was not measured: the rows of SST-2 are not at {SST2}.")


def races(task: Task, rates: dict[str, Any], seeds: Sequence[int]) -> Iterator[Figure | Note]:
    """Yield each method's steps and seconds, and the ratio of its steps to the reference init, per seed."""
    where = str(task)
    if left_out := [name for name in STARTS if name not in rates]:
        yield Note(f"{where}: {', '.join(left_out)} not measured, because no rate was searched for.")
    done: dict[str, list[Run]] = {name: [] for name in rates}
    for seed in seeds:
        for name in random.Random(seed).sample(list(rates), len(rates)):
            done[name].append(race(task, STARTS[name], rates[name]["rate"], seed))
    for name, runs in done.items():
        steps = [run.steps for run in runs if run.steps]
        if len(steps) < len(runs):
            missed = f"{len(runs) - len(steps)} of {len(runs)} seeds"
            yield Note(f"{where}: {name} did not reach the target in {MOST} steps with {missed}.")
            continue
        yield Figure("to the target", name, where, *spread(steps), unit="steps")
        yield Figure("time", name, where, *spread([run.seconds for run in runs]), unit="s")
        yield Figure("of it the init", name, where, *spread([run.init_seconds for run in runs]), unit="s")
        if name != REFERENCE and all(run.steps for run in done[REFERENCE]):
            ratios = [run.steps / other.steps for run, other in zip(runs, done[REFERENCE], strict=True)]
            yield Figure(OVER_REFERENCE, name, where, *spread(ratios))


def grids(task: Task, rates: dict[str, Any]) -> str:
    """Return a table of the steps at each rate tried, for seed 0."""
    tried = sorted({run["rate"] for method in rates.values() for run in method["grid"]})
    rows = []
    for name, method in rates.items():
        cells = {run["rate"]: f"{run['steps'] or '> ' + str(run['looked'])}" for run in method["grid"]}
        cells[method["rate"]] = f"**{cells[method['rate']]}**"
        rows.append([name, *(cells.get(rate, "") for rate in tried)])
    title = f"{task}: steps with seed 0 by learning rate, the best in bold"
    heads = ["", *(f"{rate:g}" for rate in tried)]
    return f"{title}; a run stops at twice the steps of the best so far.\n\n{table(heads, rows)}"
