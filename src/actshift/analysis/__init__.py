"""Analyses of models and adapters: where to steer, what an update does, and how adapters overlap."""

from actshift.analysis.describe import AdapterDescription as AdapterDescription
from actshift.analysis.describe import ModelDescription as ModelDescription
from actshift.analysis.describe import describe as describe
from actshift.analysis.describe import describe_adapter as describe_adapter
from actshift.analysis.describe import describe_model as describe_model
from actshift.analysis.redundancy import Redundancy as Redundancy
from actshift.analysis.redundancy import redundancy as redundancy
