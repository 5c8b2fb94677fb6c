"""Weight updates as activation shifts, and shifts as weight updates."""

from actshift.analysis.equivalence.measure import equivalence
from actshift.analysis.equivalence.report import EquivalenceReport, LayerEquivalence, Remainder
from actshift.analysis.equivalence.update import Update, check_twins, update_between

__all__ = [
    "EquivalenceReport",
    "LayerEquivalence",
    "Remainder",
    "Update",
    "check_twins",
    "equivalence",
    "update_between",
]
