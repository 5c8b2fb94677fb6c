"""Separate learning rates for the two halves of a jointly adapted model, in any trainer."""

from __future__ import annotations

from typing import Any

from torch import nn

from actshift.errors import ActshiftError
from actshift.tuner.layer import CONTAINER


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
