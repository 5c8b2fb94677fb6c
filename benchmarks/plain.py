"""Baselines and timed steps. They do not import actshift, which pyreft's environment does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.models import Shape

RANK = 8
FROZEN, FLOOR, FULL, LORA = "frozen forward", "floor", "full fine-tuning", f"LoRA r={RANK}, all linear maps"
BASE = "base, not steered"


def floor(model: Any) -> nn.Module:
    """Freeze the model but propagate gradients to the first block's output, the minimum cost of an adapter there."""
    model.requires_grad_(False)
    model.model.layers[0].register_forward_hook(_detach_output)
    return model


def _detach_output(block: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # before transformers 4.54
        return output[0].detach().requires_grad_(), *output[1:]
    return output.detach().requires_grad_()


def lora_config(rank: int = RANK) -> LoraConfig:
    """Return the config of LoRA on all linear maps."""
    return LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")


def lora(model: Any, rank: int = RANK) -> nn.Module:
    """Add PEFT's LoRA to all linear maps."""
    return get_peft_model(model, lora_config(rank))


def training_step(model: nn.Module, shape: Shape) -> Callable[[], None]:
    """Return a training step on the shape's batch: forward, backward, and AdamW if the model has trained parameters."""
    return training_steps(model, [{"input_ids": shape.ids, "labels": shape.ids}])


def training_steps(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Callable[[], None]:
    """Return a function that runs one training step on each of the batches."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None  # like transformers.Trainer
    model.train()

    def run() -> None:
        for batch in batches:
            model(**batch, use_cache=False).loss.backward()
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()

    return run


def forward_only(model: nn.Module, shape: Shape) -> Callable[[], None]:
    """Return a forward pass without gradients."""

    @torch.no_grad()
    def step() -> None:
        model(input_ids=shape.ids, labels=shape.ids, use_cache=False)

    return step


def whole_generation(model: Any, shape: Shape, tokens: int, **options: Any) -> Callable[[], None]:
    """Return a call of `generate` that decodes this number of tokens greedily after each row."""
    fixed = {"attention_mask": torch.ones_like(shape.ids), "do_sample": False, "pad_token_id": 0}

    def call() -> None:
        model.generate(input_ids=shape.ids, max_new_tokens=tokens, min_new_tokens=tokens, **fixed, **options)

    return call


def prompts_of(shape: Shape) -> str:
    """Return the title of a table on generation from the shape's rows."""
    return f"batch {shape.batch}, d {shape.width}, {shape.layers} layers, {shape.seq} prompt tokens"
