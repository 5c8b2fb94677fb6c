"""Estimate a comparison before it runs: its cells, the parameters of each method, and the time it takes."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.comparison import Comparison
from actshift.compare.methods import Method
from actshift.compare.protocol import FIRST_SEED
from actshift.compare.settings import CompareSettings
from actshift.training import TrainSettings
from actshift.training.data import sample_rows

TIMED_STEPS = 3
FORWARD_SHARE = 1 / 3  # of a training step: the backward pass has two products for each one of the forward pass


@dataclass(frozen=True)
class Throughput:
    """Measured seconds of a step, of the completion of a row and of the rest of a cell, with the method `label`."""

    label: str
    begin: float
    step: float
    completion: float


@dataclass(frozen=True)
class MethodEstimate:
    """A method's part of a comparison: its trainable parameters, its number of cells, and their time in seconds."""

    method: str
    label: str
    trainable: int
    share: float
    rates: tuple[float, ...]
    cells: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A comparison before it runs; `seconds` assumes that every method trains at the speed `pace`."""

    lines: tuple[MethodEstimate, ...]
    cells: tuple[str, ...]
    rows: Mapping[str, int]
    steps: int
    seconds: float
    jobs: int
    pace: Throughput


def estimate(settings: CompareSettings) -> Estimate:
    """Return what `compare(settings)` would do; counts parameters without weights and times a few steps.

    The time of a cell is its start, its training steps, the forward passes that evaluate its loss, and one completion
    for each scored row. The jobs share the time of all cells evenly.

    Raises:
        ActshiftError: if the comparison would stop before its first cell.
    """
    from actshift.loading import load_tokenizer
    from actshift.training.fit import CHECKPOINTS

    comparison = Comparison.from_settings(settings)
    methods, common = comparison.methods, _settings_of(comparison, comparison.methods[0])
    tokenizer = load_tokenizer(settings.required("model"), common.trust_remote_code, settings.revision)
    inputs, sizes = comparison.inputs, comparison.splits.sizes
    encoded, sample = inputs.encode_sample(tokenizer, common)
    steps = common.total_steps(round(len(encoded.examples) * len(inputs.rows) / len(sample)))
    pace = measure_throughput(comparison)
    row_forward = pace.step * FORWARD_SHARE / (common.batch_size * common.gradient_accumulation)
    evaluations = math.ceil(steps / (common.save_steps or math.ceil(steps / CHECKPOINTS)))
    training = pace.begin + steps * pace.step + evaluations * sizes["validation"] * row_forward
    lines = tuple(_estimate(method, comparison, steps, training, pace) for method in methods)
    base = (sizes["validation"] + sizes["test"]) * pace.completion
    seconds = (base + sum(line.seconds for line in lines)) / settings.jobs
    return Estimate(lines, tuple(_cell_names(methods, settings.seeds)), sizes, steps, seconds, settings.jobs, pace)


def measure_throughput(comparison: Comparison) -> Throughput:
    """Time a batch of completions by the base model, and a few steps of the first steering method, if any.

    Raises ActshiftError if the model cannot be loaded, or the method does not fit it.
    """
    import torch

    from actshift.evaluation import evaluate
    from actshift.training import fit
    from actshift.training.build import adapt, load_base
    from actshift.training.configs import AdapterSpec

    if comparison.settings.jobs > 1:
        torch.set_num_threads(1)  # as each worker will
    methods, batch_size = comparison.methods, comparison.settings.eval_batch_size
    method = next((m for m in methods if m.settings.get("method", "steering") == "steering"), methods[0])
    settings, head = _settings_of(comparison, method), comparison.inputs.head
    start = time.perf_counter()
    model, tokenizer = load_base(settings, head)
    loading = time.perf_counter() - start
    prompts = comparison.splits.dataset("validation", batch_size)
    report = evaluate(model, tokenizer, prompts, comparison.settings.new_tokens, batch_size)
    rows, spec = sample_rows(comparison.inputs.rows), AdapterSpec.from_settings(settings)
    adapted = adapt(model, spec, TIMED_STEPS, head=head)
    _, short, long = (
        fit(adapted, tokenizer, rows, replace(settings, max_steps=steps), title="Timing").seconds
        for steps in (1, 1, 1 + TIMED_STEPS)  # the first run pays for imports; the difference of the others is steps
    )
    step = max(long - short, 0.0) / TIMED_STEPS
    # A cell loads the base twice: for training and for scoring.
    return Throughput(method.label, 2 * loading + max(short - step, 0.0), step, report.seconds / report.total)


def _settings_of(comparison: Comparison, method: Method) -> TrainSettings:
    return method.cell_settings(method.rates[0], FIRST_SEED, **comparison.common)


def _estimate(method: Method, comparison: Comparison, steps: int, training: float, pace: Throughput) -> MethodEstimate:
    from actshift.training.build import adapt, base_without_weights
    from actshift.training.configs import AdapterSpec
    from actshift.training.plan import final_parameter_counts

    settings, head = _settings_of(comparison, method), comparison.inputs.head
    adapted = adapt(base_without_weights(settings, head), AdapterSpec.from_settings(settings), steps, head=head)
    trainable, parameters = final_parameter_counts(adapted, settings)
    sizes, seeds = comparison.splits.sizes, comparison.settings.seeds
    cells = len(method.rates) + seeds - 1
    seconds = cells * training + (cells * sizes["validation"] + seeds * sizes["test"]) * pace.completion
    return MethodEstimate(method.name, method.label, trainable, trainable / parameters, method.rates, cells, seconds)


def _cell_names(methods: Sequence[Method], seeds: int) -> Iterator[str]:
    yield str(BASE_CELL)
    for method in methods:
        yield from (str(Cell(method.name, rate, FIRST_SEED)) for rate in method.rates)
        yield from (f"{method.name}, the learning rate chosen, seed {FIRST_SEED + n}" for n in range(1, seeds))
