"""The adapters: pure maths on torch tensors, one file each, knowing nothing of models or PEFT."""

from actshift.adapters.base import ADAPTERS, Adapter, Shift, adapter_from_dict, register
from actshift.adapters.jola import JoLA
from actshift.adapters.lofit import HeadScale, HeadVector, head_scores, top_heads
from actshift.adapters.low_rank import LowRank
from actshift.adapters.reft import DiReFT, LoReFT, NoReFT
from actshift.adapters.vector import Vector

__all__ = [
    "ADAPTERS",
    "Adapter",
    "DiReFT",
    "HeadScale",
    "HeadVector",
    "JoLA",
    "LoReFT",
    "LowRank",
    "NoReFT",
    "Shift",
    "Vector",
    "adapter_from_dict",
    "head_scores",
    "register",
    "top_heads",
]
