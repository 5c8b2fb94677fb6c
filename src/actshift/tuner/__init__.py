"""The PEFT method: the only package that imports peft. Importing it registers the method."""

from actshift.tuner import peft_patches as _register  # noqa: F401  for its effect
from actshift.tuner.config import SteeringConfig
from actshift.tuner.controls import parameter_groups, set_strength, steering_layers, strength
from actshift.tuner.intervention import Intervention
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.halves import halves, save_half, set_halves
from actshift.tuner.joint.rule import enforce, orthogonality_violations
from actshift.tuner.layer import SteeringLayer
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
