"""Fold the shifts of an adapter into the weights of a model, if that is exact."""

from actshift.analysis.folding.merge import merged as merged
from actshift.analysis.folding.merge import weight_updates as weight_updates
from actshift.analysis.folding.plan import plan_folds as plan_folds
