"""Scorers, which read the answer in a completion and compare it with the gold answer, without partial credit."""

from actshift.tasks.scorers.base import Scorer
from actshift.tasks.scorers.choice import label_scorer
from actshift.tasks.scorers.registry import SCORERS, get_scorer

__all__ = ["SCORERS", "Scorer", "get_scorer", "label_scorer"]
