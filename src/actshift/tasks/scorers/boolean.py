"""Yes or no, or true or false."""

from __future__ import annotations

import re

from actshift.errors import ActshiftError
from actshift.tasks.scorers.mention import settle
from actshift.tasks.scorers.names import find_names
from actshift.tasks.scorers.scorer import Row, Scorer, gold_of

WORDS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}

_BEFORE_A_NOUN = re.compile(r"no\s+(?!(?:because|since|as|for|it|that|this|they|he|she|and|or|but)\b)\w", re.IGNORECASE)
"""`no one` and `no other reason` answer nothing."""


def _extract(prediction: str, row: Row) -> str | None:
    found = find_names(prediction, WORDS.items())
    return settle(prediction, [mention for mention in found if not _BEFORE_A_NOUN.match(prediction, mention.start)])


def _correct(prediction: str, row: Row) -> bool:
    gold = _extract(gold_of(row), row)
    if gold is None:
        raise ActshiftError(f"The scorer boolean needs an answer of yes, no, true or false, got {gold_of(row)!r}.")
    return _extract(prediction, row) == gold


BOOLEAN = Scorer("boolean", _correct, _extract)
