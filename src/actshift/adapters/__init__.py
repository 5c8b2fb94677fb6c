"""The adapters: pure maths on torch tensors, one file each, knowing nothing of models or PEFT."""

from actshift.adapters.base import ADAPTERS, Adapter, Shift, adapter_from_dict, register
from actshift.adapters.low_rank import LowRank
from actshift.adapters.vector import Vector

__all__ = ["ADAPTERS", "Adapter", "LowRank", "Shift", "Vector", "adapter_from_dict", "register"]
