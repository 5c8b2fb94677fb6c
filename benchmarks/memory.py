"""Memory of a training step: bytes saved for the backward pass, and peak allocation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


def kept_bytes(model: Any, ids: Tensor, autocast: torch.dtype | None = None) -> int:
    """Return the bytes that a forward pass saves for the backward pass: each storage once, without the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}  # keeps the tensors alive, so no address is reused
    keep = saved_tensors_hooks(lambda tensor: kept.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor)
    with keep, torch.autocast(ids.device.type, autocast, enabled=autocast is not None):
        logits = model(input_ids=ids, use_cache=False).logits
    assert logits.requires_grad
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept.values()}
    return sum(size for address, size in storages.items() if address not in own)


def peak_bytes(step: Callable[[], object], steps: int = 2) -> int:
    """Return the peak of allocated bytes over the start. The optimiser allocates its state in the first step."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(steps):
            step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(steps):
            step()
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
