"""The PEFT method: the only package that imports peft. Importing it registers the method."""

from actshift.tuner import register as _register  # noqa: F401  registers, before anything below is used
from actshift.tuner.config import SteeringConfig
from actshift.tuner.layer import SteeringLayer
from actshift.tuner.loading import attach, load_adapter, read_config
from actshift.tuner.model import SteeringModel
from actshift.tuner.strength import set_strength, steering_layers, strength

__all__ = [
    "SteeringConfig",
    "SteeringLayer",
    "SteeringModel",
    "attach",
    "load_adapter",
    "read_config",
    "set_strength",
    "steering_layers",
    "strength",
]
