"""Train the adapters of a base model to match the fine-tuned model's predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from actshift.analysis.capture import Batch, inference, row_offsets, split_tokens
from actshift.analysis.extract.model_pair import ModelPair, divergence, logits
from actshift.errors import ActshiftError
from actshift.tuner import steering_layers

CHECK_EVERY = 50
WARM_UP = 10


def distill(
    pair: ModelPair,
    batches: Sequence[Batch],
    steps: int = 300,
    learning_rate: float = 1e-3,
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Train the adapters of `pair.base` with AdamW on KL(fine-tuned ‖ steered), one batch per step.

    No labels are needed. Every third row is for validation. The adapters end in the state with the least KL on these
    rows, out of the initial state and one state every 50 steps. The learning rate follows a cosine after 10 warm-up
    steps.

    Returns:
        The KL of that state on validation rows, in nats per token.

    Raises:
        ActshiftError: The loss is not finite.
    """
    parameters = [p for layer in steering_layers(pair.base).values() for p in layer.parameters()]
    requires_grad = [p.requires_grad for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    offsets = row_offsets(batches)
    best, best_state = validation_kl(pair, batches), [p.detach().clone() for p in parameters]
    try:
        with inference(pair.base, pair.finetuned):
            for step in range(steps):
                index = step % len(batches)
                _step(pair, batches[index], offsets[index], optimizer)
                schedule.step()
                on_step()
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                    kl = validation_kl(pair, batches)
                    if kl < best:
                        best, best_state = kl, [p.detach().clone() for p in parameters]
    finally:
        with torch.no_grad():
            for parameter, value, flag in zip(parameters, best_state, requires_grad, strict=True):
                parameter.copy_(value)
                parameter.requires_grad_(flag)
                parameter.grad = None
    return best


def validation_kl(pair: ModelPair, batches: Sequence[Batch]) -> float:
    """Return the mean KL(fine-tuned ‖ base with its current steering) on validation rows, in nats per token."""
    divergences: list[torch.Tensor] = []
    with inference(pair.base, pair.finetuned):
        for batch, offset in zip(batches, row_offsets(batches), strict=True):
            _, validation = split_tokens(batch, offset)
            divergences.append(divergence(logits(pair.finetuned, batch), logits(pair.base, batch), validation))
    return torch.cat(divergences).mean().item()


def _step(pair: ModelPair, batch: Batch, offset: int, optimizer: torch.optim.Optimizer) -> None:
    mask, _ = split_tokens(batch, offset)
    reference = logits(pair.finetuned, batch)
    if not mask["attention_mask"].any():
        return
    with torch.enable_grad():
        loss = divergence(reference, logits(pair.base, batch), mask).mean()
    if not loss.isfinite():
        raise ActshiftError("The distillation diverged; use a lower learning rate, or no distillation.")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
