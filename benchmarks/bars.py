"""The bars that were set before anything was measured, and what is said of those that are missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.figure import Figure


@dataclass(frozen=True)
class Bar:
    """A figure that must not exceed `most`; `where` is how its table's title begins, `reason` why it is missed."""

    text: str
    suite: str
    name: str
    case: str
    where: str
    most: float
    reason: str = ""

    def figures(self, found: Iterable[Figure]) -> list[Figure]:
        """Return which of a suite's figures it is about."""
        return [
            one for one in found if (one.name, one.case) == (self.name, self.case) and one.where.startswith(self.where)
        ]


BARS: tuple[Bar, ...] = ()
