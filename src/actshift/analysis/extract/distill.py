"""A short distillation: train the adapter on the KL to the fine-tuned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from actshift.analysis.capture import Batch, inference, split_tokens
from actshift.analysis.extract.model_pair import ModelPair, divergence, logits
from actshift.errors import ActshiftError
from actshift.tuner import steering_layers

CHECK_EVERY = 50
WARM_UP = 10


def distill(
    twins: ModelPair,
    batches: Sequence[Batch],
    steps: int = 300,
    learning_rate: float = 1e-3,
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Train the adapters of `twins.base` by AdamW on KL(fine-tuned ‖ steered), a batch a step; return the KL then.

    Labels are not needed. A third of the rows is held out, and every 50 steps the state that is best there is kept, the
    one at the start too. The rate follows a cosine after 10 steps of warm-up.

    Raises ActshiftError where the loss is not finite, or the batches hold no row to train on, or to check on.
    """
    trained = [p for layer in steering_layers(twins.base).values() for p in layer.parameters()]
    before = [p.requires_grad for p in trained]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    starts = _starts(batches)
    best, kept = held_out_kl(twins, batches, starts), [p.detach().clone() for p in trained]
    try:
        with inference(twins.base, twins.finetuned):
            for step in range(steps):
                place = step % len(batches)
                _step(twins, batches[place], starts[place], optimiser)
                rate.step()
                on_step()
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                    reached = held_out_kl(twins, batches, starts)
                    if reached < best:
                        best, kept = reached, [p.detach().clone() for p in trained]
    finally:
        with torch.no_grad():
            for parameter, value, grad in zip(trained, kept, before, strict=True):
                parameter.copy_(value)
                parameter.requires_grad_(grad)
                parameter.grad = None
    return best


def held_out_kl(twins: ModelPair, batches: Sequence[Batch], starts: Sequence[int] | None = None) -> float:
    """Return the mean KL to the fine-tuned model on held-out rows, in nats a token."""
    found: list[Tensor] = []
    with inference(twins.base, twins.finetuned):
        for batch, start in zip(batches, starts or _starts(batches), strict=True):
            mask = split_tokens(batch, start)[1]
            found.append(divergence(logits(twins.finetuned, batch), logits(twins.base, batch), mask))
    return torch.cat(found).mean().item()


def _step(twins: ModelPair, batch: Batch, start: int, optimiser: torch.optim.Optimizer) -> None:
    mask = split_tokens(batch, start)[0]
    wanted = logits(twins.finetuned, batch)
    if not mask["attention_mask"].any():
        return
    with torch.enable_grad():
        loss = divergence(wanted, logits(twins.base, batch), mask).mean()
    if not loss.isfinite():
        raise ActshiftError("the distillation has diverged; use a lower learning rate, or no distillation.")
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def _starts(batches: Sequence[Batch]) -> list[int]:
    starts, rows = [], 0
    for batch in batches:
        starts.append(rows)
        rows += len(batch["input_ids"])
    return starts
