"""What an evaluation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """One row: its prompt, the completion it should have, and the one the model gave."""

    prompt: str
    reference: str
    prediction: str
    correct: bool


@dataclass(frozen=True)
class EvalReport:
    """Exact-match accuracy over all rows, the seconds that generation took, and every row's prediction.

    Example:
        >>> print(EvalReport((Prediction("2 + 2 =", " 4", " 4", True),), seconds=0.5))
        accuracy  100.0 %
        correct   1 of 1
        seconds   0.5
    """

    predictions: tuple[Prediction, ...]
    seconds: float

    @property
    def total(self) -> int:
        """The number of rows."""
        return len(self.predictions)

    @property
    def correct(self) -> int:
        """The number of rows answered exactly."""
        return sum(row.correct for row in self.predictions)

    @property
    def accuracy(self) -> float:
        """The share of rows answered exactly, 0 to 1."""
        return self.correct / self.total

    def __str__(self) -> str:
        counts = f"correct   {self.correct} of {self.total}"
        return f"accuracy  {100 * self.accuracy:.1f} %\n{counts}\nseconds   {self.seconds:.1f}"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the rows, ready for JSON."""
        figures = {name: getattr(self, name) for name in ("accuracy", "correct", "total", "seconds")}
        return {**figures, "predictions": [asdict(row) for row in self.predictions]}
