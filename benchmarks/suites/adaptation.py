"""Optimiser steps, and seconds of the init and of these steps, until the loss on 128 validation rows is at a target
set before: AdamW without weight decay, 16 rows a step, 10 steps of warm-up and then one rate, each method's best of
half-decades ([`python -m benchmarks.rates`](rates.py)). Medians over seeds that no rate was chosen by; a seed draws
rows, new head and first weights, the same for all methods."""

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
    """Race all methods on the bundled model, and on MiniLM where there are its rows."""
    rates = json.loads(FILE.read_text())
    if quick:
        task = bundled()
        yield from races(replace(task, target=8.0), rates[task.name], SEEDS[:1])
        return
    for task in tasks():
        yield from races(task, rates[task.name], SEEDS)
        yield Note(grids(task, rates[task.name]))
    if not SST2.is_dir():
        yield Note(f"MiniLM was left out: the rows of SST-2 are not at {SST2}.")


def races(task: Task, rates: dict[str, Any], seeds: Sequence[int]) -> Iterator[Figure | Note]:
    """Yield each method's steps and seconds, and its steps over those of the reference init, seed by seed."""
    where = str(task)
    if left_out := [name for name in STARTS if name not in rates]:
        yield Note(f"{where}: {', '.join(left_out)} left out, for which no rate was looked for.")
    done: dict[str, list[Run]] = {name: [] for name in rates}
    for seed in seeds:
        for name in random.Random(seed).sample(list(rates), len(rates)):
            done[name].append(race(task, STARTS[name], rates[name]["rate"], seed))
    for name, runs in done.items():
        steps = [run.steps for run in runs if run.steps]
        if len(steps) < len(runs):
            yield Note(
                f"{where}: {name} did not get there in {MOST} steps with {len(runs) - len(steps)} of {len(runs)} seeds."
            )
            continue
        yield Figure("to the target", name, where, *spread(steps), unit="steps")
        yield Figure("time", name, where, *spread([run.seconds for run in runs]), unit="s")
        yield Figure("of it the init", name, where, *spread([run.init_seconds for run in runs]), unit="s")
        if name != REFERENCE and all(run.steps for run in done[REFERENCE]):
            ratios = [run.steps / other.steps for run, other in zip(runs, done[REFERENCE], strict=True)]
            yield Figure(OVER_REFERENCE, name, where, *spread(ratios))


def grids(task: Task, rates: dict[str, Any]) -> str:
    """Return the steps at each rate that was tried, of seed 0, as a table."""
    tried = sorted({one["rate"] for method in rates.values() for one in method["grid"]})
    rows = []
    for name, method in rates.items():
        cells = {one["rate"]: f"{one['steps'] or '> ' + str(one['looked'])}" for one in method["grid"]}
        cells[method["rate"]] = f"**{cells[method['rate']]}**"
        rows.append([name, *(cells.get(rate, "") for rate in tried)])
    title = (
        f"{task}: steps of seed 0 by learning rate, the chosen one bold; a run is stopped at twice the best before it"
    )
    return f"{title}.\n\n{table(['', *(f'{rate:g}' for rate in tried)], rows)}"
