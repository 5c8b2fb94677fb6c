"""A figure and how far another draw of the data would move it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value over all groups of batches, and the same `without` each group in turn: the delete-a-group jackknife.

    Source: Efron, Stein, Annals of Statistics 9 (1981).

    >>> round(Estimate(2.0, (1.9, 2.1)).error, 3)
    0.1
    """

    value: float
    without: tuple[float, ...] = ()

    @property
    def error(self) -> float | None:
        """The standard error, or None where there is one group alone."""
        n = len(self.without)
        if n < 2:
            return None
        mean = sum(self.without) / n
        return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in self.without))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference, whose error is smaller than those of its sides where data moves both alike."""
        pairs = zip(self.without, other.without, strict=True)
        return Estimate(self.value - other.value, tuple(one - two for one, two in pairs))

    def over(self, number: float) -> Estimate:
        """Return the estimate over a number."""
        return Estimate(self.value / number, tuple(value / number for value in self.without))

    @property
    def clear(self) -> bool:
        """Whether it differs from 0 by more than two standard errors; unknown is not clear."""
        return self.error is not None and abs(self.value) > 2 * self.error


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Return the gain of one unit step that is shared by several places: the root of the sum of squares.

    >>> together([Estimate(3.0), Estimate(4.0)]).value
    5.0
    """
    columns = zip(*(one.without for one in estimates), strict=True)
    return Estimate(math.hypot(*(one.value for one in estimates)), tuple(math.hypot(*column) for column in columns))
