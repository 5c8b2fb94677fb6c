"""How fast this machine trains and completes, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from actshift.compare.comparison import Comparison
from actshift.compare.protocol import FIRST_SEED

TIMED_STEPS = 3


@dataclass(frozen=True)
class Pace:
    """Seconds: of all that a cell takes beside its steps, of a step of the method `label`, of completing one row."""

    label: str
    begin: float
    step: float
    completion: float


def measure(comparison: Comparison) -> Pace:
    """Time a batch of completions by the base, then a few steps of the first method that steers (else of the first).

    Raises ActshiftError where the model cannot be loaded, or the method does not fit it.
    """
    import torch

    from actshift.evaluation import evaluate
    from actshift.training import fit
    from actshift.training.adapting import adapt, load_base

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
    rows, adapted = comparison.splits.dataset("train"), adapt(model, settings, TIMED_STEPS, head=head)
    _, short, long = (
        fit(adapted, tokenizer, rows, replace(settings, max_steps=steps), title="Timing").seconds
        for steps in (1, 1, 1 + TIMED_STEPS)  # the first one pays for imports, and what is alike in both cancels out
    )
    step = max(long - short, 0.0) / TIMED_STEPS
    # A cell loads the base to train it, and once more to score what it saved.
    return Pace(method.label, 2 * loading + max(short - step, 0.0), step, report.seconds / report.total)
