"""Ratios of times that were taken in turns, so that whatever else the machine does meets all cases alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import quantiles
from typing import NamedTuple

from benchmarks.figure import Figure

Case = Callable[[], object]
Samples = Mapping[str, Sequence[float]]
"""Seconds of each case, by round."""


class Spread(NamedTuple):
    """A median and its quartiles."""

    value: float
    low: float
    high: float


def interleaved(
    cases: Mapping[str, Case], rounds: int, warmup: int = 2, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds that each case takes: every round runs all of them, each round in another order."""
    names = list(cases)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            began = clock()
            cases[name]()
            seconds = clock() - began
            if turn >= 0:
                samples[name].append(seconds)
    return samples


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def over(samples: Samples, case: str, base: str) -> Spread:
    """Return how many times as long `case` takes as `base`, round by round."""
    return spread([one / other for one, other in zip(samples[case], samples[base], strict=True)])


def ratios(samples: Samples, base: str, name: str, where: str) -> Iterator[Figure]:
    """Yield the ratio of every other case to `base`, as figures of this name."""
    for case in samples:
        if case != base:
            yield Figure(name, case, where, *over(samples, case, base))


def milliseconds(samples: Samples, name: str, where: str) -> Iterator[Figure]:
    """Yield the times themselves."""
    for case, seconds in samples.items():
        yield Figure(name, case, where, *(1000 * one for one in spread(seconds)), unit="ms")
