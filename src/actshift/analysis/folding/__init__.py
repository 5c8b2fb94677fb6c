"""Fold what steering adds into a model's own weights, where that is exact."""

from actshift.analysis.folding.merge import WeightUpdate, WeightUpdates, merged, weight_updates
from actshift.analysis.folding.plan import AffineShift, Fold, affine_of, plan_folds

__all__ = [
    "AffineShift",
    "Fold",
    "WeightUpdate",
    "WeightUpdates",
    "affine_of",
    "merged",
    "plan_folds",
    "weight_updates",
]
