"""The PEFT method: the only package that imports peft. Importing it registers the method."""

from actshift.tuner import register as _register  # noqa: F401  registers, before anything below is used
from actshift.tuner.config import SteeringConfig
from actshift.tuner.intervention import Intervention
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.joint.enforce import enforce, orthogonality_violations
from actshift.tuner.joint.halves import halves, save_half, set_halves
from actshift.tuner.layer import SteeringLayer
from actshift.tuner.loading import attach, load_adapter, read_config
from actshift.tuner.model import SteeringModel
from actshift.tuner.parameter_groups import parameter_groups
from actshift.tuner.prompts.scope import prompt_lengths
from actshift.tuner.start import start_from
from actshift.tuner.strength import set_strength, steering_layers, strength

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
