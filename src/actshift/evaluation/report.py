"""The result of an evaluation: every prediction, and the accuracy over all of them."""

from dataclasses import asdict, dataclass
from typing import Any

EXACT_MATCH = "exact match"  # the name of the scorer that `evaluate` uses by default


@dataclass(frozen=True)
class Prediction:
    """One row: its prompt, the reference completion, and the model's prediction.

    Attributes:
        answer: The row's answer, if a scorer judged the row.
        extracted: The answer that the scorer extracted from the prediction; None if it found none.
        choice: The row's choice with the highest log-probability, if the row has choices.
        choice_correct: Whether that choice is the reference.
    """

    prompt: str
    reference: str
    prediction: str
    correct: bool
    answer: str | None = None
    extracted: str | None = None
    choice: str | None = None
    choice_correct: bool | None = None


@dataclass(frozen=True)
class EvalReport:
    """All predictions, the seconds that the model took, and the name of the scorer.

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
        """The number of predictions."""
        return len(self.predictions)

    @property
    def correct(self) -> int:
        """The number of correct predictions."""
        return sum(row.correct for row in self.predictions)

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, 0 to 1."""
        return self.correct / self.total

    @property
    def choice_accuracy(self) -> float | None:
        """The share of rows whose most probable choice is correct, 0 to 1; None if the rows have no choices.

        It compares only the choices, so it separates learning a task from learning the form of its answers.
        """
        if any(row.choice_correct is None for row in self.predictions):
            return None
        return sum(bool(row.choice_correct) for row in self.predictions) / self.total

    def __str__(self) -> str:
        choices = "" if self.choice_accuracy is None else f"choices   {100 * self.choice_accuracy:.1f} %\n"
        return (
            f"accuracy  {100 * self.accuracy:.1f} %\n{choices}correct   {self.correct} of {self.total}\n"
            f"seconds   {self.seconds:.1f}\nscorer    {self.scorer}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the predictions as JSON values."""
        names = ("accuracy", "choice_accuracy", "correct", "total", "seconds", "scorer")
        figures = {name: getattr(self, name) for name in names}
        return {**figures, "predictions": [asdict(row) for row in self.predictions]}
