"""What an evaluation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EXACT_MATCH = "exact match"


@dataclass(frozen=True)
class Prediction:
    """One row: its prompt, the completion it should have, and the one the model gave.

    Where a scorer judged: the row's `answer`, and what was `extracted` from the prediction as the model's answer
    (None where there was nothing that could be one).
    """

    prompt: str
    reference: str
    prediction: str
    correct: bool
    answer: str | None = None
    extracted: str | None = None


@dataclass(frozen=True)
class EvalReport:
    """Accuracy over all rows, the seconds that generation took, every row's prediction, and the scorer's name.

    Example:
        >>> print(EvalReport((Prediction("2 + 2 =", " 4", " 4", True),), seconds=0.5))
        accuracy  100.0 %
        correct   1 of 1
        seconds   0.5
        scorer    exact match
    """

    predictions: tuple[Prediction, ...]
    seconds: float
    scorer: str = EXACT_MATCH

    @property
    def total(self) -> int:
        """The number of rows."""
        return len(self.predictions)

    @property
    def correct(self) -> int:
        """The number of rows answered right, as the scorer judges."""
        return sum(row.correct for row in self.predictions)

    @property
    def accuracy(self) -> float:
        """The share of rows answered right, 0 to 1."""
        return self.correct / self.total

    def __str__(self) -> str:
        lines = {
            "accuracy": f"{100 * self.accuracy:.1f} %",
            "correct": f"{self.correct} of {self.total}",
            "seconds": f"{self.seconds:.1f}",
            "scorer": self.scorer,
        }
        return "\n".join(f"{name:<10}{value}" for name, value in lines.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the rows, ready for JSON."""
        figures = {name: getattr(self, name) for name in ("accuracy", "correct", "total", "seconds", "scorer")}
        return {**figures, "predictions": [asdict(row) for row in self.predictions]}
