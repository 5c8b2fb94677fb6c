"""The public names of actshift, each listed once: `__init__.py` and type checkers read this file."""

__version__: str

from actshift.adapters import Ablation as Ablation
from actshift.adapters import Adapter as Adapter
from actshift.adapters import DiReFT as DiReFT
from actshift.adapters import GatedVector as GatedVector
from actshift.adapters import HeadScale as HeadScale
from actshift.adapters import HeadVector as HeadVector
from actshift.adapters import JoLA as JoLA
from actshift.adapters import LoReFT as LoReFT
from actshift.adapters import LowRank as LowRank
from actshift.adapters import NoReFT as NoReFT
from actshift.adapters import Vector as Vector
from actshift.analysis import redundancy as redundancy
from actshift.analysis.batches import token_batches as token_batches
from actshift.analysis.contrast import contrast as contrast
from actshift.analysis.equivalence import equivalence as equivalence
from actshift.analysis.extract import extract as extract
from actshift.analysis.folding import merged as merged
from actshift.analysis.locate import locate as locate
from actshift.errors import ActshiftError as ActshiftError
from actshift.evaluation import calibrate as calibrate
from actshift.gradients import gradient_init as gradient_init
from actshift.orthogonality import Orthogonality as Orthogonality
from actshift.sites import Positions as Positions
from actshift.tuner import Intervention as Intervention
from actshift.tuner import JointConfig as JointConfig
from actshift.tuner import SteeringConfig as SteeringConfig
from actshift.tuner import attach as attach
from actshift.tuner import enforce as enforce
from actshift.tuner import halves as halves
from actshift.tuner import load_adapter as load_adapter
from actshift.tuner import orthogonality_violations as orthogonality_violations
from actshift.tuner import parameter_groups as parameter_groups
from actshift.tuner import prompt_lengths as prompt_lengths
from actshift.tuner import save_half as save_half
from actshift.tuner import set_halves as set_halves
from actshift.tuner import set_strength as set_strength
from actshift.tuner import start_from as start_from
from actshift.tuner import strength as strength
