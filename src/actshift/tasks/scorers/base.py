"""The interface of a scorer, the gold answer of a row, and the exact scorer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import eq

from actshift.data.rows import Row
from actshift.errors import ActshiftError

Extract = Callable[[str, Row], str | None]
ReadGold = Callable[[Row], str]


@dataclass(frozen=True)
class Scorer:
    """A strict judge of completions, without partial credit.

    A row has the gold answer in canonical form as `answer`, or else a `completion`, and may have `choices` (texts).

    Attributes:
        correct: a function from a prediction and its row to whether the prediction has the gold answer.
        extract: a function from a prediction and its row to its answer in canonical form, or to None if the
            prediction does not have exactly one answer.

    >>> from actshift.tasks.scorers import get_scorer
    >>> number = get_scorer("number")
    >>> number("3 + 4 = 7, so 7 apples.", {"answer": "7"}), number.extract("$1,080.50", {})
    (True, '1080.5')
    """

    name: str
    correct: Callable[[str, Row], bool]
    extract: Extract

    def __call__(self, prediction: str, row: Row) -> bool:
        """Return whether a prediction has the gold answer of its row."""
        return self.correct(prediction, row)


def gold_of(row: Row) -> str:
    """Return the `answer` of a row, or else its `completion`, stripped. Raise ActshiftError if it has neither.

    >>> gold_of({"completion": " 42"}), gold_of({"completion": " so 42", "answer": 42})
    ('42', '42')
    """
    for column in ("answer", "completion"):
        if row.get(column) is not None:
            return str(row[column]).strip()
    raise ActshiftError(f"A row to score needs the column answer or completion, and has {', '.join(row) or 'none'}.")


def extracted_gold(scorer: str, allowed: str, extract: Extract, row: Row) -> str:
    """Return the gold answer of a row as `extract` reads it, or raise `ActshiftError` if it reads none."""
    if (gold := extract(gold_of(row), row)) is None:
        raise ActshiftError(f"The scorer {scorer} needs an answer {allowed}, got {gold_of(row)!r}.")
    return gold


def answer_scorer(
    name: str, extract: Extract, read_gold: ReadGold = gold_of, same: Callable[[str, str], bool] = eq
) -> Scorer:
    """Return a scorer that compares the extracted answer of a prediction with the gold answer.

    Args:
        read_gold: a function from a row to its gold answer in canonical form, which raises `ActshiftError` for others.
        same: a function that compares an answer with the gold answer.

    >>> answer_scorer("lower", lambda prediction, row: prediction.lower())("YES", {"answer": "yes"})
    True
    """
    return Scorer(name, partial(_has_gold_answer, extract, read_gold, same), extract)


def _has_gold_answer(
    extract: Extract, read_gold: ReadGold, same: Callable[[str, str], bool], prediction: str, row: Row
) -> bool:
    gold, answer = read_gold(row), extract(prediction, row)
    return answer is not None and same(answer, gold)


def _strip(prediction: str, row: Row) -> str:
    return prediction.strip()


EXACT = answer_scorer("exact", _strip)
"""The scorer that compares the whole completion, except white space at its ends."""
