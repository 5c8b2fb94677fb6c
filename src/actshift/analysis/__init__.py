"""Look into models and adapters."""

from actshift.analysis.adapter import AdapterDescription, SiteDescription, describe_adapter
from actshift.analysis.describe import describe
from actshift.analysis.model import ModelDescription, describe_model

__all__ = [
    "AdapterDescription",
    "ModelDescription",
    "SiteDescription",
    "describe",
    "describe_adapter",
    "describe_model",
]
