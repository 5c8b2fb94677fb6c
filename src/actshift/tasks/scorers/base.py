"""The whole completion, white space at its ends apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actshift.errors import ActshiftError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scorer:
    """Two functions of a prediction and its row: is it right, and which answer does it give.

    The row holds `answer`, the gold in canonical form, or else `completion`; and `choices` (texts) where there are
    some. `extract` returns the answer in canonical form, or None where there is none or more than one.

    >>> from actshift.tasks.scorers import get_scorer
    >>> number = get_scorer("number")
    >>> number("3 + 4 = 7, so 7 apples.", {"answer": "7"}), number.extract("$1,080.50", {})
    (True, '1080.5')
    """

    name: str
    correct: Callable[[str, Row], bool]
    extract: Callable[[str, Row], str | None]

    def __call__(self, prediction: str, row: Row) -> bool:
        """Tell whether `prediction` gives the gold answer of `row`."""
        return self.correct(prediction, row)


def gold_of(row: Row) -> str:
    """Return the row's `answer`, or else its `completion`, without white space at the ends.

    Raises ActshiftError where it has neither.

    >>> gold_of({"completion": " 42"}), gold_of({"completion": " so 42", "answer": 42})
    ('42', '42')
    """
    for column in ("answer", "completion"):
        if row.get(column) is not None:
            return str(row[column]).strip()
    raise ActshiftError(f"A row to score needs the column answer or completion, and has {', '.join(row) or 'none'}.")


def _extract(prediction: str, row: Row) -> str:
    return prediction.strip()


def _correct(prediction: str, row: Row) -> bool:
    return prediction.strip() == gold_of(row)


EXACT = Scorer("exact", _correct, _extract)
