"""Fit low-rank adapters in closed form: one regression per block, in order, on the stream that is already steered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import torch

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, inference, split_batches, unmasked
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.report import LayerFit, OracleReport
from actshift.analysis.regression import Affine, Moments, best_fit
from actshift.errors import ActshiftError
from actshift.model_head import TaskType
from actshift.tuner import Intervention, SteeringConfig, steering_layers

Ranks = dict[int, int]
"""The rank of each steered layer."""


def ranks_within(budget: int, report: OracleReport, width: int) -> Ranks:
    """Distribute a budget of parameters as ranks over the layers with the largest oracle shifts relative to the stream.

    One rank costs 2d + 1 parameters, and the first rank of a layer d more for the bias. Ranks are bought greedily, the
    one that adds most of the oracle's energy relative to the activation's energy first.

    Raises:
        ActshiftError: The budget buys no rank.
    """
    offers: list[tuple[float, int, int]] = []
    for layer in report.layers:
        for (low, low_energy), (high, energy) in pairwise([(0, 0.0), *layer.energy.items()]):
            gain = layer.size**2 * ((energy - low_energy) / (high - low))  # the mean over the ranks between
            offers += [(gain, layer.layer, rank) for rank in range(low + 1, high + 1)]
    ranks: Ranks = {}
    remaining = budget
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
    batches: Sequence[Batch],
    ranks: Ranks,
    done: Mapping[int, LayerFit] | None = None,
    on_layer: Callable[[Mapping[int, LayerFit]], None] | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> list[LayerFit]:
    """Fit the fresh adapters of `pair.base` block by block, from the steered activation h to h_finetuned - h.

    Each fit is a reduced-rank ridge regression. Its ridge has the least error on validation rows. Every block takes one
    pass over the batches, up to that block.

    `done` are fits of an interrupted run, whose adapters are already filled. `on_layer` is called with all fits by
    layer when a new one is filled, and `on_batch` after each batch of each block.

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
            r2 = 1 - fit.error / validation.variance if validation.variance else 0.0
            fits[index] = LayerFit(index, rank, fit.ridge, r2)
            if on_layer is not None:
                on_layer(fits)
    return [fits[index] for index in sorted(fits)]


def _fill(shift: Any, affine: Affine) -> None:
    """Write an affine map into an adapter, and balance the norms of its two factors."""
    assert isinstance(shift, LowRankShift)
    up, down = affine.up, affine.down
    scale = (down.norm() / up.norm().clamp(min=1e-30)).sqrt().clamp(min=1e-6)
    with torch.no_grad():
        shift.down.weight.zero_()
        shift.up.weight.zero_()
        shift.down.weight[: len(down)].copy_(down / scale)
        shift.up.weight[:, : len(down)].copy_(up * scale)
        shift.down.bias.zero_()
        shift.up.bias.copy_(affine.bias)
