"""Scorers: read the answer out of a completion, and tell whether it is the gold one. Strict: no partial credit."""

from actshift.tasks.scorers.label import label_scorer
from actshift.tasks.scorers.registry import SCORERS, get_scorer
from actshift.tasks.scorers.scorer import Scorer

__all__ = ["SCORERS", "Scorer", "get_scorer", "label_scorer"]
