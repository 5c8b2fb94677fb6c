"""Adapters: the formulas that shift an activation, in plain torch, independent of models and of PEFT.

All modules of this package are imported here, and each registers its adapter classes. A new adapter is one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from actshift.adapters.base import ADAPTERS as ADAPTERS
from actshift.adapters.base import Adapter as Adapter
from actshift.adapters.base import HeadAdapter as HeadAdapter
from actshift.adapters.base import RankAdapter as RankAdapter
from actshift.adapters.base import Shift as Shift
from actshift.adapters.base import adapter_from_dict as adapter_from_dict
from actshift.adapters.jola import JoLA as JoLA
from actshift.adapters.lofit import HeadScale as HeadScale
from actshift.adapters.lofit import HeadVector as HeadVector
from actshift.adapters.lofit import head_scores as head_scores
from actshift.adapters.lofit import top_heads as top_heads
from actshift.adapters.low_rank import LowRank as LowRank
from actshift.adapters.reft import DiReFT as DiReFT
from actshift.adapters.reft import LoReFT as LoReFT
from actshift.adapters.reft import NoReFT as NoReFT
from actshift.adapters.vector import Vector as Vector

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
