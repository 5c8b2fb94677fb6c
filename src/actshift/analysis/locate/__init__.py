"""Where to steer, from a few backward passes and without a fine-tuned model."""

from actshift.analysis.locate.measure import locate
from actshift.analysis.locate.report import Estimate, LocateReport, MethodGain, SiteGain

__all__ = ["Estimate", "LocateReport", "MethodGain", "SiteGain", "locate"]
