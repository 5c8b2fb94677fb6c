"""Weight updates expressed as activation shifts, and the part that steering could copy."""

from actshift.analysis.equivalence.measure import check_same_shapes, equivalence, update_between
from actshift.analysis.equivalence.report import EquivalenceReport, LayerEquivalence, Remainder

__all__ = ["EquivalenceReport", "LayerEquivalence", "Remainder", "check_same_shapes", "equivalence", "update_between"]
