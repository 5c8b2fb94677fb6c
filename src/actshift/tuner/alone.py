"""One adapter seen alone, so that to add or load one does not mean to walk through the thousand that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from actshift.tuner.controls import steering_layers
from actshift.tuner.walking import OnlyOne


@contextmanager
def alone(model: nn.Module, adapter_name: str) -> Iterator[None]:
    """Let who walks through `model` find no adapter in its steering layers but this one, until the block ends.

    What is computed stays as it is, so that other threads may go on generating. Inside of itself it changes nothing.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2), "first")
    >>> model.add_adapter("second", SteeringConfig(rank=2))
    >>> with alone(model, "second"):
    ...     sorted({name.split(".")[-3] for name, _ in model.named_parameters() if "lora_steer" in name})
    ['second']
    """
    containers: list[Any] = [layer.lora_steer for layer in steering_layers(model).values()]
    if any(isinstance(one._modules, OnlyOne) for one in containers):
        yield
        return
    for one in containers:
        one._modules = OnlyOne(one._modules, adapter_name)
    try:
        yield
    finally:
        for one in containers:
            one._modules = _with_changes(one._modules, adapter_name)


def _with_changes(seen: OnlyOne, adapter_name: str) -> dict[str, Any]:
    if adapter_name in seen:
        seen.everyone[adapter_name] = seen[adapter_name]
    else:
        seen.everyone.pop(adapter_name, None)
    return seen.everyone
