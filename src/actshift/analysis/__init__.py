"""Look into models and adapters."""

from actshift.analysis.adapter import AdapterDescription, SiteDescription, describe_adapter
from actshift.analysis.describe import describe
from actshift.analysis.model import ModelDescription, describe_model
from actshift.analysis.redundancy import BlockRedundancy, Overlap, Redundancy, redundancy
from actshift.analysis.shifts import shifts_alone

__all__ = [
    "AdapterDescription",
    "BlockRedundancy",
    "ModelDescription",
    "Overlap",
    "Redundancy",
    "SiteDescription",
    "describe",
    "describe_adapter",
    "describe_model",
    "redundancy",
    "shifts_alone",
]
