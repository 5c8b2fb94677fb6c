"""The methods that are compared, each as what makes a fresh model train by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

import actshift
from actshift import JointConfig, LoReFT, LowRank, Orthogonality, SteeringConfig, Vector
from benchmarks.models import Shape

Method = Callable[[Any], nn.Module]
RANK = 8

FROZEN, FLOOR, FULL, LORA = "frozen forward", "floor", "full fine-tuning", f"LoRA r={RANK}, all linear maps"
OURS, LINEAR, JOINT = f"post-block r={RANK}", f"post-block r={RANK}, linear", "joint, with the constraint"


def floor(model: Any) -> nn.Module:
    """Freeze the model and have gradients go down to what the first block gives: what any adapter there must pay."""
    model.requires_grad_(False)
    model.model.layers[0].register_forward_hook(lambda module, args, output: output.detach().requires_grad_())
    return model


def lora(model: Any, rank: int = RANK) -> nn.Module:
    """Add PEFT's LoRA to all linear maps."""
    return get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))


def steering(**config: Any) -> Method:
    """Return what adds a steering adapter, its maps random, as after some steps of training."""

    def method(model: Any) -> nn.Module:
        return randomised(actshift.attach(model, SteeringConfig(**config)))

    return method


def joint(model: Any) -> nn.Module:
    """Add LoRA and post-block steering under the paper's rule."""
    config = JointConfig(
        r=RANK, target_modules="all-linear", steering=SteeringConfig(rank=RANK), orthogonality=Orthogonality()
    )
    return actshift.attach(model, config)


def randomised(model: nn.Module) -> nn.Module:
    """Give every trainable tensor small random values: fresh adapters are zeros, which a step must not profit from."""
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
    "post-block vector": steering(adapter=Vector()),
    LINEAR: steering(adapter=LowRank(rank=RANK, activation=None)),
    OURS: steering(rank=RANK),
    f"ReFT r={RANK}, post-MLP": lambda model: actshift.attach(
        model, SteeringConfig(adapter=LoReFT(rank=RANK), site="post_mlp")
    ),
    JOINT: joint,
}
"""What is trained, by the name that the tables have."""


def training_step(model: nn.Module, shape: Shape) -> Callable[[], None]:
    """Return a step of training on the shape's batch: forward, backward, AdamW; of the floor, forward and backward."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    model.train()

    def step() -> None:
        model(input_ids=shape.ids, labels=shape.ids, use_cache=False).loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def forward_only(model: nn.Module, shape: Shape) -> Callable[[], None]:
    """Return a forward pass without gradients."""

    @torch.no_grad()
    def step() -> None:
        model(input_ids=shape.ids, labels=shape.ids, use_cache=False)

    return step
