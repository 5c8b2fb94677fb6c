"""The whole completion, white space at its ends apart."""

from __future__ import annotations

from actshift.tasks.scorers.scorer import Row, Scorer, gold_of


def _extract(prediction: str, row: Row) -> str:
    return prediction.strip()


def _correct(prediction: str, row: Row) -> bool:
    return prediction.strip() == gold_of(row)


EXACT = Scorer("exact", _correct, _extract)
