"""What a comparison would do: its cells, what each trains, and about how long it would take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.compare import Comparison
from actshift.compare.methods import Method
from actshift.compare.protocol import FIRST_SEED
from actshift.compare.settings import CompareSettings
from actshift.training import TrainSettings

TIMED_STEPS = 3


@dataclass(frozen=True)
class Throughput:
    """Seconds: of all that a cell takes beside its steps, of a step of the method `label`, of completing one row."""

    label: str
    begin: float
    step: float
    completion: float


def measure(comparison: Comparison) -> Throughput:
    """Time a batch of completions by the base, then a few steps of the first method that steers (else of the first).

    Raises ActshiftError where the model cannot be loaded, or the method does not fit it.
    """
    import torch

    from actshift.evaluation import evaluate
    from actshift.training import fit
    from actshift.training.build import adapt, load_base
    from actshift.training.configs import AdapterSpec

    if comparison.settings.jobs > 1:
        torch.set_num_threads(1)  # as each job will
    methods, size = comparison.choice.methods, comparison.settings.eval_batch_size
    method = next((one for one in methods if one.settings.get("method", "steering") == "steering"), methods[0])
    settings = method.cell_settings(method.rates[0], FIRST_SEED, **comparison.choice.common)
    start = time.perf_counter()
    head = comparison.inputs.head
    model, tokenizer = load_base(settings, head)
    loading = time.perf_counter() - start
    some = comparison.splits.dataset("validation", size)
    report = evaluate(model, tokenizer, some, comparison.settings.new_tokens, size)
    rows, adapted = comparison.splits.dataset("train"), adapt(model, AdapterSpec.from_settings(settings), TIMED_STEPS, head=head)
    _, short, long = (
        fit(adapted, tokenizer, rows, replace(settings, max_steps=steps), title="Timing").seconds
        for steps in (1, 1, 1 + TIMED_STEPS)  # the first one pays for imports, and what is alike in both cancels out
    )
    step = max(long - short, 0.0) / TIMED_STEPS
    # A cell loads the base to train it, and once more to score what it saved.
    return Throughput(method.label, 2 * loading + max(short - step, 0.0), step, report.seconds / report.total)


FORWARD_SHARE = 1 / 3
"""Of a training step, what its forward pass takes: the backward pass is two products for each of the forward's."""


@dataclass(frozen=True)
class Line:
    """A method's part of a comparison: what it trains, its cells (one a rate, one more a seed), and their seconds."""

    method: str
    label: str
    trainable: int
    share: float
    rates: tuple[float, ...]
    cells: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A comparison before it runs; `seconds` is an estimate from `pace`, at which every method is taken to go."""

    lines: tuple[Line, ...]
    cells: tuple[str, ...]
    rows: Mapping[str, int]
    steps: int
    seconds: float
    jobs: int
    pace: Throughput

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)


def estimate(settings: CompareSettings) -> Estimate:
    """Return what `compare(settings)` would do; parameters are counted without weights, a few steps are timed with.

    A cell takes the time to begin, its steps, and the forward passes of evaluating its loss; its scores take a
    completion for each row. The time of all cells is shared evenly by the jobs.

    Raises ActshiftError for whatever would stop the comparison before its first cell.
    """
    from actshift.loading import load_tokenizer

    comparison = Comparison.of(settings)
    first = comparison.choice.methods[0]
    common = first.cell_settings(first.rates[0], FIRST_SEED, **comparison.choice.common)
    tokenizer = load_tokenizer(settings.named("model"), common.trust_remote_code)
    inputs = comparison.inputs
    steps = common.total_steps(len(inputs.encode(inputs.rows, tokenizer, common).examples))
    pace = measure(comparison)
    train = pace.begin + steps * pace.step + _evaluations(steps, common) * _forwards(comparison, common, pace)
    lines = tuple(_line(method, comparison, steps, train, pace) for method in comparison.choice.methods)
    sizes = comparison.splits.sizes
    base = (sizes["validation"] + sizes["test"]) * pace.completion
    return Estimate(
        lines=lines,
        cells=tuple(_cells(comparison)),
        rows=sizes,
        steps=steps,
        seconds=(base + sum(line.seconds for line in lines)) / settings.jobs,
        jobs=settings.jobs,
        pace=pace,
    )


def _cells(comparison: Comparison) -> Iterator[str]:
    yield str(BASE_CELL)
    for method in comparison.choice.methods:
        yield from (str(Cell(method.name, rate, FIRST_SEED)) for rate in method.rates)
        for more in range(1, comparison.settings.seeds):
            yield f"{method.name}, the learning rate chosen, seed {FIRST_SEED + more}"


def _line(method: Method, comparison: Comparison, steps: int, train: float, pace: Throughput) -> Line:
    from actshift.training.build import adapt, base_without_weights
    from actshift.training.configs import AdapterSpec
    from actshift.training.plan import counts

    settings = method.cell_settings(method.rates[0], FIRST_SEED, **comparison.choice.common)
    head = comparison.inputs.head
    adapted = adapt(base_without_weights(settings, head), AdapterSpec.from_settings(settings), steps, head=head)
    trainable, parameters = counts(adapted, settings)
    sizes, seeds = comparison.splits.sizes, comparison.settings.seeds
    cells = len(method.rates) + seeds - 1
    scored = cells * sizes["validation"] + seeds * sizes["test"]
    return Line(
        method=method.name,
        label=method.label,
        trainable=trainable,
        share=trainable / parameters,
        rates=method.rates,
        cells=cells,
        seconds=cells * train + scored * pace.completion,
    )


def _evaluations(steps: int, settings: TrainSettings) -> int:
    from actshift.training.fit import CHECKPOINTS

    return math.ceil(steps / (settings.save_steps or math.ceil(steps / CHECKPOINTS)))


def _forwards(comparison: Comparison, settings: TrainSettings, pace: Throughput) -> float:
    row = pace.step * FORWARD_SHARE / (settings.batch_size * settings.gradient_accumulation)
    return comparison.splits.sizes["validation"] * row
