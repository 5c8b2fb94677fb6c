"""Where to steer, from a few backward passes and without a fine-tuned model."""

from actshift.analysis.locate.measure import locate
from actshift.analysis.locate.report import Estimate, LocateReport, Method, Place

__all__ = ["Estimate", "LocateReport", "Method", "Place", "locate"]
