"""Scorers by name."""

from __future__ import annotations

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.scorers.base import EXACT, Scorer
from actshift.tasks.scorers.choice import BOOLEAN, CHOICE, LABEL
from actshift.tasks.scorers.number import NUMBER

SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in (EXACT, NUMBER, CHOICE, BOOLEAN, LABEL)}
"""Every scorer by its name."""


def get_scorer(name: str) -> Scorer:
    """Return the scorer of this name.

    Raises ActshiftError for an unknown name, with the nearest one.

    >>> get_scorer("choice")("(B)", {"answer": "B", "choices": ["oak", "pear"]})
    True
    """
    if name not in SCORERS:
        raise ActshiftError(
            f"There is no scorer {name!r}{did_you_mean(name, SCORERS)}; the scorers are {', '.join(SCORERS)}."
        )
    return SCORERS[name]
