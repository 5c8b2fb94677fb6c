"""One adapter seen alone, so that to add or load one does not mean to walk through the thousand that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from actshift.tuner.strength import steering_layers


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
    layers = steering_layers(model).values()
    if any(layer.shows_only_one for layer in layers):
        yield
        return
    for layer in layers:
        layer.show_only(adapter_name)
    try:
        yield
    finally:
        for layer in steering_layers(model).values():  # those too that the adapter brought
            layer.show_all(adapter_name)
