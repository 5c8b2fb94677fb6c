"""Results of a suite: figures and notes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure, with quartiles: column `name` and row `case` of the table `where`."""

    name: str
    case: str
    where: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "×"

    def __str__(self) -> str:
        numbers = [self.value] if self.low is None or self.high is None else [self.value, self.low, self.high]
        size = abs(self.value)
        if size >= 1000 or (self.unit != "×" and all(float(number).is_integer() for number in numbers)):
            digits = 0
        else:
            digits = 1 if size >= 100 else 3 if self.unit == "×" else 2
        value, *spread = (f"{number:,.{digits}f}" for number in numbers)
        return f"{value} ({spread[0]} to {spread[1]})" if spread else value


@dataclass(frozen=True)
class Note:
    """Markdown below the tables of a suite, such as a profile, or the reason why something was not measured."""

    text: str
