"""Fit low-rank adapters in closed form: one regression per block, in order, on the stream that is already steered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, inference, row_offsets, split_tokens, unmasked
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.report import LayerFit, LayerOracle, OracleReport
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
    offers = [(layer.size**2 * gain, layer.layer, rank) for layer in report.layers for rank, gain in _rank_gains(layer)]
    ranks: Ranks = {}
    remaining = budget
    for gain, layer, rank in sorted(offers, reverse=True):
        cost = (rank - ranks.get(layer, 0)) * (2 * width + 1) + (0 if layer in ranks else width)
        if gain > 0 and rank > ranks.get(layer, 0) and cost <= remaining:
            ranks[layer], remaining = rank, remaining - cost
    if not ranks:
        raise ActshiftError(f"A budget of {budget:,} parameters buys no rank; the cheapest costs {3 * width + 1:,}.")
    return ranks


def _rank_gains(layer: LayerOracle) -> Iterator[tuple[int, float]]:
    """Yield each rank up to the largest measured one, with the mean energy that it adds."""
    last, reached = 0, 0.0
    for rank, energy in layer.energy.items():
        for step in range(last + 1, rank + 1):
            yield step, (energy - reached) / (rank - last)
        last, reached = rank, energy


def config_for(ranks: Ranks, task_type: TaskType = "CAUSAL_LM") -> SteeringConfig:
    """Return the config of a linear post-block adapter with biases and these ranks."""
    return SteeringConfig(
        interventions=[
            Intervention(
                LowRank(rank=rank, activation=None, bias=True),
                layers=tuple(layer for layer, own in ranks.items() if own == rank),
            )
            for rank in sorted(set(ranks.values()))
        ],
        task_type=task_type,
    )


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

    Args:
        done: Fits of an interrupted run, whose adapters are already filled; they are kept.
        on_layer: Called with all fits by layer, after the adapter of a new one is filled.
        on_batch: Called after each batch of each block.

    Source: this project, docs/method.md#extraction.
    """
    fits = dict(done or {})
    layers = {layer.layer_index: layer for layer in steering_layers(pair.base).values()}
    with inference(pair.base, pair.finetuned):
        for index, rank in sorted(ranks.items()):
            if index in fits:
                continue
            fitted, validation = Moments(), Moments()
            for batch, offset in zip(batches, row_offsets(batches), strict=True):
                h, target = pair.block_outputs(index, batch)
                for moments, mask in zip((fitted, validation), split_tokens(batch, offset), strict=True):
                    moments.add(unmasked(h, mask), unmasked(target - h, mask))
                on_batch()
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
