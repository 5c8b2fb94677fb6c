"""Adapters: the formulas that shift an activation, in plain torch, independent of models and of PEFT.

All modules of this package are imported here, and each registers its adapter classes. A new adapter is one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from actshift.adapters.ablation import Ablation
from actshift.adapters.base import ADAPTERS, Adapter, HeadAdapter, RankAdapter, Shift, adapter_from_dict
from actshift.adapters.gated_vector import GatedVector
from actshift.adapters.jola import JoLA
from actshift.adapters.lofit import HeadScale, HeadVector, head_scores, top_heads
from actshift.adapters.low_rank import LowRank
from actshift.adapters.reft import DiReFT, LoReFT, NoReFT
from actshift.adapters.vector import Vector

__all__ = [
    "ADAPTERS", "Ablation", "Adapter", "DiReFT", "GatedVector", "HeadAdapter", "HeadScale", "HeadVector", "JoLA",
    "LoReFT", "LowRank", "NoReFT", "RankAdapter", "Shift", "Vector", "adapter_from_dict", "head_scores", "top_heads",
]  # fmt: skip

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
