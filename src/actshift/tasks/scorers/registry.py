"""Scorers by name. Every module-level `Scorer` in this package is registered."""

from __future__ import annotations

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.discovery import instances_in
from actshift.tasks.scorers.base import Scorer

SCORERS = {scorer.name: scorer for scorer in instances_in("actshift.tasks.scorers", Scorer)}
"""All scorers by name."""


def get_scorer(name: str) -> Scorer:
    """Return the scorer of this name.

    Raises:
        ActshiftError: the name is unknown.

    >>> get_scorer("choice")("(B)", {"answer": "B", "choices": ["oak", "pear"]})
    True
    """
    if name not in SCORERS:
        raise ActshiftError(
            f"There is no scorer {name!r}{did_you_mean(name, SCORERS)}; the scorers are {', '.join(SCORERS)}."
        )
    return SCORERS[name]
