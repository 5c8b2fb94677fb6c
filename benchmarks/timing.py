"""Interleaved timing: cases take turns, so other load on the machine affects all of them equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import quantiles
from typing import NamedTuple

from benchmarks.figure import Figure

Case = Callable[[], object]
Samples = Mapping[str, Sequence[float]]
"""Seconds of each case in each round."""


class Spread(NamedTuple):
    """A median and its quartiles."""

    value: float
    low: float
    high: float


def interleaved(
    cases: Mapping[str, Case], rounds: int, warmup: int = 2, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each case. Every round runs all cases, in a rotated order."""
    names = list(cases)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            start_time = clock()
            cases[name]()
            seconds = clock() - start_time
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
    """Return the ratio of the times of `case` and `base`, computed per round."""
    return spread([seconds / base_seconds for seconds, base_seconds in zip(samples[case], samples[base], strict=True)])


def ratios(samples: Samples, base: str, name: str, where: str) -> Iterator[Figure]:
    """Yield the ratio of every other case to `base`, as figures with this name."""
    for case in samples:
        if case != base:
            yield Figure(name, case, where, *over(samples, case, base))


def milliseconds(samples: Samples, name: str, where: str) -> Iterator[Figure]:
    """Yield the times as figures in milliseconds."""
    for case, seconds in samples.items():
        yield Figure(name, case, where, *(1000 * value for value in spread(seconds)), unit="ms")
