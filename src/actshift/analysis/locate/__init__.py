"""Where to steer, from a few backward passes and without a fine-tuned model."""

from actshift.analysis.locate.estimate import Estimate
from actshift.analysis.locate.measure import locate
from actshift.analysis.locate.report import LocateReport, Method, Place

__all__ = ["Estimate", "LocateReport", "Method", "Place", "locate"]
