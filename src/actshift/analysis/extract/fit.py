"""Fit the adapters of a base model to its fine-tuned version: in closed form, and then by distillation."""

import math
from collections.abc import Callable, Mapping
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, Batches, inference, split_batches, unmasked
from actshift.analysis.extract.model_pair import ModelPair, Step, divergence, logits
from actshift.analysis.extract.report import LayerFit, OracleReport
from actshift.analysis.regression import Affine, Moments, best_fit
from actshift.errors import ActshiftError
from actshift.gradients.backward import restored
from actshift.model_head import TaskType
from actshift.tuner import Intervention, SteeringConfig, steering_layers

Ranks = dict[int, int]
"""The rank of each steered layer."""
CHECK_EVERY = 50
WARM_UP = 10


def ranks_within(budget: int, report: OracleReport, width: int) -> Ranks:
    """Distribute a budget of parameters as ranks over the layers with the largest oracle shifts relative to the stream.

    One rank costs 2d + 1 parameters, and the first rank of a layer d more for the bias. Ranks are bought greedily, the
    one that adds most of the oracle's energy relative to the activation's energy first. Raises ActshiftError if the
    budget buys no rank.
    """
    offers: list[tuple[float, int, int]] = []
    for layer in report.layers:
        for (low, low_energy), (high, energy) in pairwise([(0, 0.0), *layer.energy.items()]):
            gain = layer.size**2 * ((energy - low_energy) / (high - low))  # the mean over the ranks between
            offers += [(gain, layer.layer, rank) for rank in range(low + 1, high + 1)]
    ranks, remaining = Ranks(), budget
    for gain, index, rank in sorted(offers, reverse=True):
        cost = (rank - ranks.get(index, 0)) * (2 * width + 1) + (0 if index in ranks else width)
        if gain > 0 and rank > ranks.get(index, 0) and cost <= remaining:
            ranks[index], remaining = rank, remaining - cost
    if not ranks:
        raise ActshiftError(f"A budget of {budget:,} parameters buys no rank; the cheapest costs {3 * width + 1:,}.")
    return ranks


def config_for(ranks: Ranks, task_type: TaskType = "CAUSAL_LM") -> SteeringConfig:
    """Return the config of a linear post-block adapter with biases and these ranks."""
    interventions = [
        Intervention(LowRank(rank=rank, activation=None, bias=True), layers=tuple(layers))
        for rank, layers in groupby(sorted(ranks, key=lambda layer: (ranks[layer], layer)), key=ranks.__getitem__)
    ]
    return SteeringConfig(interventions=interventions, task_type=task_type)


def fit_layers(
    pair: ModelPair,
    batches: Batches,
    ranks: Ranks,
    done: Mapping[int, LayerFit] | None = None,
    on_layer: Callable[[Mapping[int, LayerFit]], None] | None = None,
    on_batch: Step = lambda: None,
) -> list[LayerFit]:
    """Fit the fresh adapters of `pair.base` block by block, from the steered activation h to h_finetuned - h.

    Each fit is a reduced-rank ridge regression, takes one pass, and has the ridge with the least error on validation
    rows. `done` are fits of an interrupted run, whose adapters are filled. `on_layer` is called with all fits by layer
    when a new one is filled, and `on_batch` after each batch of each block.

    Source: this project, docs/method.md#extraction.
    """
    fits, splits = dict(done or {}), split_batches(batches)
    layers = {layer.layer_index: layer for layer in steering_layers(pair.base).values()}
    with inference(pair.base, pair.finetuned):
        for index in sorted(ranks.keys() - fits.keys()):
            fitted, validation = Moments(), Moments()
            for batch, masks in zip(batches, splits, strict=True):
                h, target = pair.block_outputs(index, batch)
                for moments, mask in zip((fitted, validation), masks, strict=True):
                    moments.add(unmasked(h, mask), unmasked(target - h, mask))
                on_batch()
            rank = ranks[index]
            fit = best_fit(fitted, validation, [rank])[rank]
            _fill(next(iter(layers[index].lora_steer.values())), fit.map)
            fits[index] = LayerFit(index, rank, fit.ridge, validation.r2(fit.error))
            if on_layer is not None:
                on_layer(fits)
    return [fits[index] for index in sorted(fits)]


def _fill(shift: Any, affine: Affine) -> None:
    """Write an affine map into an adapter, and balance the norms of its two factors."""
    assert isinstance(shift, LowRankShift)
    up, down = affine.up, affine.down
    scale = (down.norm() / up.norm().clamp(min=1e-30)).sqrt().clamp(min=1e-6)
    with torch.no_grad():
        shift.down.weight.copy_(down / scale)
        shift.up.weight.copy_(up * scale)
        shift.down.bias.zero_()
        shift.up.bias.copy_(affine.bias)


def distill(
    pair: ModelPair, batches: Batches, steps: int = 300, learning_rate: float = 1e-3, on_step: Step = lambda: None
) -> float:
    """Train the adapters of `pair.base` with AdamW on KL(fine-tuned ‖ steered), one batch per step.

    Every third row is for validation. The adapters end in the state with the least KL on these rows, out of the initial
    state and one state every 50 steps, and this KL is returned, in nats per token. The learning rate follows a cosine
    after 10 warm-up steps.
    Raises ActshiftError if the loss is not finite, or the KL after the last step.
    """
    parameters = [p for layer in steering_layers(pair.base).values() for p in layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    )
    masks = [fitted for fitted, _ in split_batches(batches)]
    best, best_state = validation_kl(pair, batches), [p.detach().clone() for p in parameters]
    with restored(parameters, "requires_grad"), inference(pair.base, pair.finetuned):
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for step in range(steps):
                index = step % len(batches)
                if not _step(pair, batches[index], masks[index], optimizer):
                    raise _diverged(learning_rate)
                schedule.step()
                on_step()
                if (step + 1) % CHECK_EVERY and step + 1 < steps:
                    continue
                if not math.isfinite(kl := validation_kl(pair, batches)):
                    raise _diverged(learning_rate)
                if kl < best:
                    best, best_state = kl, [p.detach().clone() for p in parameters]
        finally:
            for parameter, value in zip(parameters, best_state, strict=True):
                parameter.copy_(value)
                parameter.grad = None
    return best


def check_rate(learning_rate: float) -> None:
    """Raise ActshiftError unless a learning rate is above 0 and a number of float32."""
    if not 0 < learning_rate <= torch.finfo(torch.float32).max:
        raise ActshiftError(f"The learning rate must be above 0 and below 3.4e38, got {learning_rate:g}.")


def validation_kl(pair: ModelPair, batches: Batches) -> float:
    """Return the mean KL(fine-tuned ‖ base with its current steering) on validation rows, in nats per token."""
    divergences: list[Tensor] = []
    with inference(pair.base, pair.finetuned):
        for batch, (_, validation) in zip(batches, split_batches(batches), strict=True):
            divergences.append(divergence(logits(pair.finetuned, batch), logits(pair.base, batch), validation))
    return torch.cat(divergences).mean().item()


def _step(pair: ModelPair, batch: Batch, mask: Batch, optimizer: torch.optim.Optimizer) -> bool:
    """Take one step on a batch; return False instead if the loss is not finite."""
    reference = logits(pair.finetuned, batch)
    if not mask["attention_mask"].any():
        return True
    with torch.enable_grad():
        loss = divergence(reference, logits(pair.base, batch), mask).mean()
    if not loss.isfinite():
        return False
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return True


def _diverged(rate: float) -> ActshiftError:
    fix = f"use a lower learning rate (it was {rate:g}), or no distillation"
    return ActshiftError(f"The distillation diverged; {fix}.")
