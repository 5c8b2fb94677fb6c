"""What a suite finds: figures, and notes beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure: `name` (a column) of `case` (a row), measured at `where` (a table), with quartiles."""

    name: str
    case: str
    where: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "×"

    def __str__(self) -> str:
        digits = 0 if abs(self.value) >= 1000 else 1 if abs(self.value) >= 100 else 3 if self.unit == "×" else 2
        spread = (
            "" if self.low is None or self.high is None else f" ({self.low:,.{digits}f} to {self.high:,.{digits}f})"
        )
        return f"{self.value:,.{digits}f}{spread}"


@dataclass(frozen=True)
class Note:
    """Markdown below a suite's tables: what could not be measured and why, a profile, what is left to gain."""

    text: str
