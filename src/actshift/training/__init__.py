"""Train an adapter, or a whole model, on rows of text: settings, the loop over TRL, and the whole verb."""

from actshift.training.fit import FitResult, fit
from actshift.training.plan import Memory, Plan, plan
from actshift.training.result import TrainResult, stored_settings
from actshift.training.settings import TrainSettings, read_config_file
from actshift.training.train import train

__all__ = [
    "FitResult",
    "Memory",
    "Plan",
    "TrainResult",
    "TrainSettings",
    "fit",
    "plan",
    "read_config_file",
    "stored_settings",
    "train",
]
