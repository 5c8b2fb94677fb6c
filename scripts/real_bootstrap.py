"""Bootstrap intervals of accuracies and of their differences, over test rows and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 95  # per cent


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval, in percentage points.

    >>> str(Interval(1.24, -0.3, 2.8))
    '+1.2 [-0.3, +2.8]'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def accuracy_interval(outcomes: Sequence[str]) -> Interval:
    """Return the accuracy of a method. `outcomes` has a text of 0 and 1 for each seed, with a digit for each row."""
    return difference_interval(outcomes, ["0" * len(outcomes[0])])


def difference_interval(first: Sequence[str], second: Sequence[str]) -> Interval:
    """Return the accuracy of the first method minus the accuracy of the second one on the same rows.

    Each resample draws rows, which both methods share, and the seeds of each method, all with replacement.

    >>> difference_interval(["1111", "1111"], ["0000"])
    Interval(mean=100.0, low=100.0, high=100.0)
    """
    rng = np.random.default_rng(0)
    rows = len(first[0])
    weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES) / rows
    means = []
    for outcomes in (first, second):
        by_seed = np.array([list(map(int, text)) for text in outcomes]) @ weights.T  # [seeds, resamples]
        drawn = rng.integers(len(outcomes), size=(len(outcomes), RESAMPLES))
        means.append(np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0))
    differences = 100 * (means[0] - means[1])
    observed = 100 * (_mean(first) - _mean(second))
    low, high = np.percentile(differences, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(round(observed, 2), round(float(low), 2), round(float(high), 2))


def _mean(outcomes: Sequence[str]) -> float:
    return sum(text.count("1") for text in outcomes) / sum(map(len, outcomes))
