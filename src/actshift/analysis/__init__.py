"""Analyses of models and adapters: where to steer, what an update does, and how adapters overlap."""

from actshift.analysis.capture import shifts_alone
from actshift.analysis.describe import (
    AdapterDescription,
    ModelDescription,
    SiteDescription,
    describe,
    describe_adapter,
    describe_model,
)
from actshift.analysis.redundancy import BlockRedundancy, Overlap, Redundancy, redundancy

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
