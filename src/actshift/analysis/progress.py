"""Progress callbacks of the analyses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

ProgressCallback = Callable[[str, int, int], None]
"""A function that is called with a phase, the number of its finished steps, and their total."""


def progress_counter(callback: ProgressCallback, phase: str, total: int) -> Callable[[], None]:
    """Return a function that reports one more finished step of `phase` each time it is called.

    >>> step = progress_counter(lambda phase, done, total: print(f"{phase}: {done} of {total}"), "Reading", 2)
    >>> step()
    Reading: 1 of 2
    """
    steps = count(1)
    return lambda: callback(phase, next(steps), total)
