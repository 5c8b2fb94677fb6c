"""Separate learning rates for the two halves of a jointly adapted model, in any trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from actshift.errors import ActshiftError
from actshift.tuner.layer import CONTAINER, SteeringLayer
from actshift.tuner.walking import modules_around_adapters


def steering_layers(model: nn.Module) -> dict[str, SteeringLayer]:
    """Return every steering layer of a model by its qualified name, in forward order."""
    return {name: module for name, module in modules_around_adapters(model) if isinstance(module, SteeringLayer)}


def set_strength(model: nn.Module, strength: float, adapter_name: str | None = None) -> None:
    """Set the run-time strength s of h + s·Δ(h): 1 is as trained, 0 the base model bit for bit.

    Works on a PeftModel and on a transformers model with native adapters, for one adapter or, with None, all.
    Strength is a matter of run time: it is not saved.

    Raises ActshiftError for a strength that is not a finite number, a model without steering, an unknown adapter.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2))
    >>> set_strength(model, 0.5)
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise ActshiftError(f"strength must be a finite number such as 0.5, got {strength!r}.")
    layers = list(steering_layers(model).values())
    known = sorted({name for layer in layers for name in layer.strength})
    if not known:
        raise ActshiftError(f"{type(model).__name__} carries no steering adapter; attach or load one first.")
    if adapter_name is not None and adapter_name not in known:
        raise ActshiftError(f"there is no steering adapter {adapter_name!r}; there are {', '.join(known)}.")
    for layer in layers:
        for name in layer.strength:
            if adapter_name in (None, name):
                layer.strength[name] = float(strength)


@contextmanager
def strength(model: nn.Module, strength: float, adapter_name: str | None = None) -> Iterator[None]:
    """Set the run-time strength inside a `with` block, and put the former ones back after it.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2))
    >>> with strength(model, 0.5):
    ...     halfway = next(iter(steering_layers(model).values())).strength["default"]
    >>> halfway
    0.5
    """
    layers = list(steering_layers(model).values())
    before = [dict(layer.strength) for layer in layers]
    set_strength(model, strength, adapter_name)
    try:
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            layer.strength.update(former)


def parameter_groups(
    model: nn.Module, learning_rate: float, lora_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Return what is trained in `model` as parameter groups for a torch optimiser, one a half.

    The group "activations" holds the shifts, at `learning_rate`; "weights" holds LoRA and all else that is
    trained, at `lora_learning_rate`, or the same where it is None. A half that has nothing is left out.

    Raises ActshiftError where no parameter requires gradients.

    >>> import torch
    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=1))
    >>> optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, lora_learning_rate=1e-4))
    >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
    [('activations', 0.001)]
    """
    halves: dict[str, list[nn.Parameter]] = {"activations": [], "weights": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            halves["activations" if CONTAINER in name else "weights"].append(parameter)
    if not any(halves.values()):
        raise ActshiftError(f"No parameter of {type(model).__name__} requires gradients; attach an adapter first.")
    rates = {"activations": learning_rate, "weights": lora_learning_rate or learning_rate}
    return [{"params": half, "lr": rates[name], "name": name} for name, half in halves.items() if half]
