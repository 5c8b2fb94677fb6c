"""Scorers, which read the answer in a completion and compare it with the gold answer, without partial credit.

Every module-level `Scorer` in a file of this package is registered by its name.
"""

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.discovery import instances_in
from actshift.tasks.scorers.base import Scorer
from actshift.tasks.scorers.choice import label_scorer

__all__ = ["SCORERS", "Scorer", "get_scorer", "label_scorer"]

SCORERS = {scorer.name: scorer for scorer in instances_in(__name__, Scorer)}
"""All scorers by name."""


def get_scorer(name: str) -> Scorer:
    """Return the scorer of this name.

    Raises:
        ActshiftError: the name is unknown.

    >>> get_scorer("choice")("(B)", {"answer": "B", "choices": ["oak", "pear"]})
    True
    """
    if name in SCORERS:
        return SCORERS[name]
    hint = did_you_mean(name, SCORERS)
    raise ActshiftError(f"There is no scorer {name!r}{hint}; the scorers are {', '.join(SCORERS)}.")
