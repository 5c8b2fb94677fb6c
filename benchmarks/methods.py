"""The compared methods, as functions that prepare a fresh model for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import IA3Config, PromptTuningConfig, get_peft_model
from torch import nn

import actshift
from actshift import JointConfig, LoReFT, LowRank, Orthogonality, SteeringConfig, Vector
from benchmarks.plain import FULL, LORA, RANK, lora

Method = Callable[[Any], nn.Module]
OURS, LINEAR, VECTOR = f"post-block r={RANK}", f"post-block r={RANK}, linear", "post-block vector"
JOINT = "joint, with the constraint"


def steering(**config: Any) -> Method:
    """Return a method that adds a steering adapter with random weights, as after some training."""

    def method(model: Any) -> nn.Module:
        return randomised(actshift.attach(model, SteeringConfig(**config)))

    return method


def joint_config() -> JointConfig:
    """Return LoRA on all linear maps and post-block steering under the paper's rule."""
    return JointConfig(
        r=RANK, target_modules="all-linear", steering=SteeringConfig(rank=RANK), orthogonality=Orthogonality()
    )


def joint(model: Any) -> nn.Module:
    """Add LoRA and post-block steering under the paper's rule."""
    return actshift.attach(model, joint_config())


def randomised(model: nn.Module) -> nn.Module:
    """Set every trainable tensor to small random values, because steps on zeros can be faster."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


METHODS: dict[str, Method] = {
    FULL: lambda model: model.requires_grad_(True),
    LORA: lora,
    "IA³ (PEFT)": lambda model: get_peft_model(model, IA3Config(task_type="CAUSAL_LM")),
    "prompt tuning, 8 tokens (PEFT)": lambda model: get_peft_model(
        model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=8)
    ),
    VECTOR: steering(adapter=Vector()),
    LINEAR: steering(adapter=LowRank(rank=RANK, activation=None)),
    OURS: steering(rank=RANK),
    f"ReFT r={RANK}, post-MLP": lambda model: actshift.attach(
        model, SteeringConfig(adapter=LoReFT(rank=RANK), site="post_mlp")
    ),
    JOINT: joint,
}
"""The methods by their names in the tables."""
