"""Least squares from sums over batches: no activation is kept."""

from actshift.analysis.regression.moments import Moments
from actshift.analysis.regression.reduced_rank import RIDGES, Affine, Fit, ReducedRank, best_fit

__all__ = ["RIDGES", "Affine", "Fit", "Moments", "ReducedRank", "best_fit"]
