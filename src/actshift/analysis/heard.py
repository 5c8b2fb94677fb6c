"""Who listens to the progress of an analysis: a function told the phase, and how many of its steps are done."""

from __future__ import annotations

from collections.abc import Callable

Heard = Callable[[str, int, int], None]


def counted(heard: Heard, phase: str, total: int) -> Callable[[], None]:
    """Return a function that tells `heard` of one more step of `phase` each time that it is called.

    >>> step = counted(lambda phase, done, total: print(f"{phase}: {done} of {total}"), "Reading", 2)
    >>> step()
    Reading: 1 of 2
    """
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        heard(phase, done, total)

    return one
