"""What a step takes in memory: the bytes kept for the backward pass, and the most that is allocated at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


def kept_bytes(model: Any, ids: Tensor, autocast: torch.dtype | None = None) -> int:
    """Return what a forward pass to the logits keeps for the backward pass, each storage once, without the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}  # held until the end, so that no place is used twice
    keep = saved_tensors_hooks(lambda tensor: kept.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor)
    with keep, torch.autocast(ids.device.type, autocast, enabled=autocast is not None):
        logits = model(input_ids=ids, use_cache=False).logits
    assert logits.requires_grad
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept.values()}
    return sum(size for place, size in storages.items() if place not in own)


def peak_bytes(step: Callable[[], object], steps: int = 2) -> int:
    """Return the most bytes allocated at a time beyond those before; the optimiser's own come with the first step."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(steps):
            step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        for _ in range(steps):
            step()
    assert found.profiler is not None
    events = [one for one in found.profiler.kineto_results.events() if one.name() == "[memory]"]
    return max(accumulate(one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())))
