"""First-order estimates of where to steer, from a few backward passes and without a fine-tuned model."""

from actshift.analysis.locate.gains import Estimate, MethodGain, SiteGain
from actshift.analysis.locate.measure import locate
from actshift.analysis.locate.report import LocateReport

__all__ = ["Estimate", "LocateReport", "MethodGain", "SiteGain", "locate"]
