"""A small float64 model, batches, tapped backward passes, and the measured effect of a step on the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from actshift.gradients import BackwardStats, BatchGroup, Tap, backward, tap_host
from actshift.sites import resolve
from tests.zoo import ARCHITECTURES, VOCAB

STEP = 1e-4


def model_of(name: str = "gpt2") -> nn.Module:
    """A float64 model. GPT-2 computes in float64 throughout, but Llama and others normalise in float32."""
    return ARCHITECTURES[name]().double()


def batch_of(rows: int = 2, seq: int = 9, prompt: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Rows whose first `prompt` tokens have no label."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (rows, seq), generator=generator)
    labels = ids.clone()
    labels[:, :prompt] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def batches_of(count: int = 3) -> list[dict[str, Tensor]]:
    """Batches with different numbers of rows, tokens and targets."""
    return [batch_of(1 + number % 2, 7 + number, 2 + number, seed=number) for number in range(count)]


def padded(batch: dict[str, Tensor], left: int, right: int) -> dict[str, Tensor]:
    """The same rows with padding. The padding id is an ordinary token."""
    fill = {"input_ids": 5, "attention_mask": 0, "labels": -100}
    return {name: nn.functional.pad(value, (left, right), value=fill[name]) for name, value in batch.items()}


def run_tapped(model, batches, site="post_block", groups=1, **options) -> tuple[BackwardStats, list[Tap]]:
    """Run the backward passes with a tap at each host of a site."""
    batch_group, hosts = BatchGroup(groups), resolve(model, site)
    taps = [Tap(host.name, **options) for host in hosts]
    handles = [tap_host(tap, host, batch_group) for tap, host in zip(taps, hosts, strict=True)]
    return backward(model, batches, taps, batch_group, handles), taps


def matrices(stats: BackwardStats, taps: list[Tap]) -> list[Tensor]:
    return [tap.matrix.matrix(stats.shares) for tap in taps]


def loss_over(model, batches) -> Tensor:
    """The mean loss over all targets, with its graph."""
    counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
    return sum(count * model(**batch).loss for count, batch in zip(counts, batches, strict=True)) / sum(counts)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """The mean loss over all targets, computed from the logits."""
    total, count = 0.0, 0
    for batch in batches:
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
        targets = batch["labels"][:, 1:]
        total += nn.functional.cross_entropy(logits.mT, targets, ignore_index=-100, reduction="sum").item()
        count += int((targets != -100).sum())
    return total / count


def slope(model: nn.Module, batches: list[dict[str, Tensor]], move: Callable[[float], None]) -> float:
    """The decrease of the loss per size ε of a step: the central difference at +ε and −ε."""
    losses = []
    for size in (-STEP, STEP):
        move(size)
        losses.append(mean_loss(model, batches))
    move(0.0)
    return (losses[0] - losses[1]) / (2 * STEP)
