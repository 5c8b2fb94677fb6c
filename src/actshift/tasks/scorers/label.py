"""One label out of a set of names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.scorers.mention import settle
from actshift.tasks.scorers.names import find_names
from actshift.tasks.scorers.scorer import Row, Scorer, gold_of


def label_scorer(labels: Sequence[str] = ()) -> Scorer:
    """Return the scorer of rows whose answer is one of `labels`, or of the row's `choices` where it has some.

    A prediction gives the label that it names as a whole word (in any case), if it names no other or marks it as
    its answer. A word that only begins like a label is none: `entail` and `entails` are not `entailment`.

    Raises ActshiftError, when it scores a row that has no labels or whose answer is none of them.

    >>> scorer = label_scorer(["positive", "negative"])
    >>> [scorer(text, {"answer": "positive"}) for text in ("Positive.", "positively", "not positive")]
    [True, False, False]
    """
    return Scorer("label", partial(_correct, labels=tuple(labels)), partial(_extract, labels=tuple(labels)))


def _extract(prediction: str, row: Row, labels: tuple[str, ...]) -> str | None:
    names = _names(row, labels)
    if prediction.strip() in names:
        return prediction.strip()
    return settle(prediction, find_names(prediction, zip(names, names, strict=True)))


def _correct(prediction: str, row: Row, labels: tuple[str, ...]) -> bool:
    gold, names = gold_of(row), _names(row, labels)
    if gold not in names:
        raise ActshiftError(
            f"The answer {gold!r} of a row is none of its labels {', '.join(names)}{did_you_mean(gold, names)}."
        )
    return _extract(prediction, row, labels) == gold


def _names(row: Row, labels: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(row.get("choices") or labels)
    if not names:
        raise ActshiftError("The scorer label needs the labels: in the row's column choices, or by label_scorer.")
    return names


LABEL = label_scorer()
