"""The PEFT method: configs, steering layers, and attaching, loading and controlling adapters.

Importing this package registers the method with PEFT. No other package of actshift imports peft.
"""

from actshift.tuner import peft_patches as _peft_patches  # noqa: F401  # pyright: ignore[reportUnusedImport]  registers
from actshift.tuner.config import JointConfig as JointConfig
from actshift.tuner.config import SteeringConfig as SteeringConfig
from actshift.tuner.controls import halves as halves
from actshift.tuner.controls import parameter_groups as parameter_groups
from actshift.tuner.controls import save_half as save_half
from actshift.tuner.controls import set_halves as set_halves
from actshift.tuner.controls import set_strength as set_strength
from actshift.tuner.controls import strength as strength
from actshift.tuner.intervention import Intervention as Intervention
from actshift.tuner.joint.rule import enforce as enforce
from actshift.tuner.joint.rule import orthogonality_violations as orthogonality_violations
from actshift.tuner.layer import SteeringLayer as SteeringLayer
from actshift.tuner.layer import steering_layers as steering_layers
from actshift.tuner.loading import attach as attach
from actshift.tuner.loading import load_adapter as load_adapter
from actshift.tuner.loading import read_config as read_config
from actshift.tuner.loading import start_from as start_from
from actshift.tuner.model import SteeringModel as SteeringModel
from actshift.tuner.prompt_scope import prompt_lengths as prompt_lengths
