"""Begin an adapter along the gradient of the rows that it will learn from."""

from __future__ import annotations

from random import Random
from typing import Any

from actshift.training.job import Job

ROWS = 256
"""How many of the training rows are looked at."""


def first_weights(adapted: Any, job: Job) -> None:
    """Fill what has `init="gradient"` from rows that the run's seed draws; other adapters have their weights already.

    Raises ActshiftError where the rows give no gradient.
    """
    from actshift.encoding import padded
    from actshift.gradients import gradient_init

    interventions = adapted.peft_config["default"].all_interventions if job.settings.steers else ()
    if all(getattr(one.adapter, "init", None) != "gradient" for one in interventions):
        return
    examples, size = job.examples.train.examples, job.settings.batch_size
    drawn = Random(job.settings.seed).sample(examples, min(ROWS, len(examples)))
    gradient_init(adapted, [padded(drawn[at : at + size], job.tokenizer) for at in range(0, len(drawn), size)])
