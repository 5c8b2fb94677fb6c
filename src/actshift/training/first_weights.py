"""Begin an adapter where a saved one ended, or along the gradient of the rows that it will learn from."""

from __future__ import annotations

from random import Random
from typing import Any

from actshift.training.job import Job

ROWS = 256
"""How many of the training rows are looked at."""


def first_weights(adapted: Any, job: Job) -> None:
    """Fill what begins at a saved adapter, or by `init="gradient"` from rows that the run's seed draws.

    Other adapters have their weights already. Raises ActshiftError where the saved one does not fit, or the rows give
    no gradient.
    """
    from actshift.encoding import padded
    from actshift.gradients import gradient_init
    from actshift.tuner import start_from

    if job.settings.start:
        start_from(adapted, job.settings.start)
        return
    interventions = adapted.peft_config["default"].all_interventions if job.settings.steers else ()
    if all(getattr(one.adapter, "init", None) != "gradient" for one in interventions):
        return
    examples, size = job.examples.train.examples, job.settings.batch_size
    drawn = Random(job.settings.seed).sample(examples, min(ROWS, len(examples)))
    gradient_init(adapted, [padded(drawn[at : at + size], job.tokenizer) for at in range(0, len(drawn), size)])
