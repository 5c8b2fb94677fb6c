"""Weight updates as activation shifts, and shifts as weight updates."""

from actshift.analysis.equivalence.measure import Update, check_twins, equivalence, update_between
from actshift.analysis.equivalence.report import EquivalenceReport, LayerEquivalence, Remainder

__all__ = [
    "EquivalenceReport",
    "LayerEquivalence",
    "Remainder",
    "Update",
    "check_twins",
    "equivalence",
    "update_between",
]
