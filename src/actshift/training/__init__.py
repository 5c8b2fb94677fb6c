"""Train adapters and whole models on rows of text: settings, the training loop, and `actshift train`."""

from actshift.training.fit import fit
from actshift.training.plan import Memory, Plan, plan
from actshift.training.result import FitResult, TrainResult, stored_settings
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
