"""What adapters promise that no optimiser step keeps: by the epoch, and at the end. Imports transformers."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from actshift.tuner import enforce, steering_layers


class Epochs(TrainerCallback):
    """Enforces at the end of each epoch what an adapter promises of itself by the epoch."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Enforce it after an epoch's last step; `on_epoch_end` comes after that step's checkpoint is saved."""
        if float(state.epoch or 0).is_integer() and "epoch" in _periods(model):
            enforce(model)


def settle(model: nn.Module) -> None:
    """End the training of every adapter in `model`: open gates become 0 or 1, and a rule of k steps holds exactly."""
    for layer in steering_layers(model).values():
        for shift in layer.lora_steer.values():
            if any(parameter.requires_grad for parameter in shift.parameters()):
                shift.finish()  # type: ignore[operator]
    if _periods(model) - {None}:
        enforce(model)


def _periods(model: nn.Module) -> set[Any]:
    layers = steering_layers(model).values()
    return {constraint.period for layer in layers for constraint in layer.constraints.values()}
