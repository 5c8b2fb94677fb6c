"""The PEFT method: configs, steering layers, and attaching, loading and controlling adapters.

Importing this package registers the method with PEFT. No other package of actshift imports peft.
"""

from actshift.tuner import peft_patches as _register  # noqa: F401  registers the method; must come first
from actshift.tuner.config import SteeringConfig
from actshift.tuner.controls import halves, parameter_groups, save_half, set_halves, set_strength, strength
from actshift.tuner.intervention import Intervention
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.rule import enforce, orthogonality_violations
from actshift.tuner.layer import SteeringLayer, steering_layers
from actshift.tuner.loading import attach, load_adapter, read_config, start_from
from actshift.tuner.model import SteeringModel
from actshift.tuner.prompt_scope import prompt_lengths

__all__ = [
    "Intervention",
    "JointConfig",
    "SteeringConfig",
    "SteeringLayer",
    "SteeringModel",
    "attach",
    "enforce",
    "halves",
    "load_adapter",
    "orthogonality_violations",
    "parameter_groups",
    "prompt_lengths",
    "read_config",
    "save_half",
    "set_halves",
    "set_strength",
    "start_from",
    "steering_layers",
    "strength",
]
