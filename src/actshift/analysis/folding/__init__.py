"""Fold what steering adds into a model's own weights, where that is exact."""

from actshift.analysis.folding.affine import AffineShift, affine_of
from actshift.analysis.folding.merge import merged
from actshift.analysis.folding.plan import Fold, plan_folds
from actshift.analysis.folding.weight_update import WeightUpdate, WeightUpdates, weight_updates

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
