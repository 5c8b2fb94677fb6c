"""What steering is compared with, and the steps that are timed: no actshift, as in pyreft's process there is none."""

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
    """Freeze the model and have gradients go down to what the first block gives: what any adapter there must pay."""
    model.requires_grad_(False)
    model.model.layers[0].register_forward_hook(_begin_here)
    return model


def _begin_here(block: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # before transformers 4.54
        return output[0].detach().requires_grad_(), *output[1:]
    return output.detach().requires_grad_()


def lora_config(rank: int = RANK) -> LoraConfig:
    """Return LoRA on all linear maps."""
    return LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")


def lora(model: Any, rank: int = RANK) -> nn.Module:
    """Add PEFT's LoRA to all linear maps."""
    return get_peft_model(model, lora_config(rank))


def training_step(model: nn.Module, shape: Shape) -> Callable[[], None]:
    """Return a step of training on the shape's batch: forward, backward, AdamW; of the floor, forward and backward."""
    return training_steps(model, [{"input_ids": shape.ids, "labels": shape.ids}])


def training_steps(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Callable[[], None]:
    """Return what takes such a step on each of the batches."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None  # as Trainer's is
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


def whole_generation(model: Any, shape: Shape, tokens: int, **named: Any) -> Callable[[], None]:
    """Return a greedy generation of so many tokens after each of the shape's rows, by a call of `generate`."""
    fixed = {"attention_mask": torch.ones_like(shape.ids), "do_sample": False, "pad_token_id": 0}

    def call() -> None:
        model.generate(input_ids=shape.ids, max_new_tokens=tokens, min_new_tokens=tokens, **fixed, **named)

    return call


def prompts_of(shape: Shape) -> str:
    """Return the title of a table on what is generated from the shape's rows."""
    return f"batch {shape.batch}, d {shape.width}, {shape.layers} layers, {shape.seq} prompt tokens"
