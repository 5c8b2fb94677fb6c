"""A small float64 model and batches, and the loss measured after a step of a given size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.zoo import ARCHITECTURES, VOCAB

STEP = 1e-4


def model_of(name: str = "gpt2") -> nn.Module:
    """A model that computes in float64, but for its loss: Llama and its like norm in float32 whatever they are in."""
    return ARCHITECTURES[name]().double()


def batch_of(rows: int = 2, seq: int = 9, prompt: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Rows whose first tokens are a prompt, without a label."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (rows, seq), generator=draw)
    labels = ids.clone()
    labels[:, :prompt] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def batches_of(count: int = 3) -> list[dict[str, Tensor]]:
    """Batches with different numbers of rows, tokens and targets."""
    return [batch_of(1 + number % 2, 7 + number, 2 + number, seed=number) for number in range(count)]


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """The mean over all targets: of each row, those after the first token that have a label."""
    total, count = 0.0, 0
    for batch in batches:
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
        targets = batch["labels"][:, 1:]
        total += nn.functional.cross_entropy(logits.mT, targets, ignore_index=-100, reduction="sum").item()
        count += int((targets != -100).sum())
    return total / count


def slope(model: nn.Module, batches: list[dict[str, Tensor]], move: Callable[[float], None]) -> float:
    """What a step of size ε takes off the loss, over ε: the central difference of the losses at +ε and −ε."""
    losses = []
    for size in (-STEP, STEP):
        move(size)
        losses.append(mean_loss(model, batches))
    move(0.0)
    return (losses[0] - losses[1]) / (2 * STEP)
