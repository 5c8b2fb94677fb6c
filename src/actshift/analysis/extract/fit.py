"""The adapter in closed form: one regression a block, in order, on the stream that is steered already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, inference, split_tokens, unmasked
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.report import LayerFit, OracleReport
from actshift.analysis.regression import Affine, Fit, Moments, best_fit
from actshift.errors import ActshiftError
from actshift.model_head import TaskType
from actshift.tuner import Intervention, SteeringConfig, steering_layers

Ranks = dict[int, int]
"""The rank of each steered layer."""


def config_for(ranks: Ranks, task_type: TaskType = "CAUSAL_LM") -> SteeringConfig:
    """Return the config of a linear post-block adapter with biases, of these ranks by layer, for a model's head."""
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
    twins: ModelPair,
    batches: Sequence[Batch],
    ranks: Ranks,
    done: dict[int, LayerFit] | None = None,
    on_layer: Callable[[LayerFit], None] = lambda fit: None,
    on_batch: Callable[[], None] = lambda: None,
) -> list[LayerFit]:
    """Fit the fresh adapters of `twins.base` block by block, each from the already steered h to h_finetuned - h.

    Each is the reduced-rank ridge regression, its ridge the one with the least error on held-out rows. Layers that
    are `done` are kept. A block takes a pass over the batches, up to that block. `on_layer` hears each new fit, when
    its adapter holds it.

    Source: [ours], METHOD §3.
    """
    fits = dict(done or {})
    layers = {layer.layer_index: layer for layer in steering_layers(twins.base).values()}
    with inference(twins.base, twins.finetuned):
        for index, rank in sorted(ranks.items()):
            if index in fits:
                continue
            seen, held_out, rows = Moments(), Moments(), 0
            for batch in batches:
                h, wanted = twins.after(index, batch)
                for moments, mask in zip((seen, held_out), split_tokens(batch, rows), strict=True):
                    moments.add(unmasked(h, mask), unmasked(wanted - h, mask))
                rows += len(batch["input_ids"])
                on_batch()
            fit = best_fit(seen, held_out, [rank])[rank]
            put(next(iter(layers[index].lora_steer.values())), fit.map)
            fits[index] = described(index, rank, fit, held_out)
            on_layer(fits[index])
    return [fits[index] for index in sorted(fits)]


def put(shift: Any, fitted: Affine) -> None:
    """Write a fitted map into an adapter, balanced so that both its factors have the same norm."""
    assert isinstance(shift, LowRankShift)
    up, down = fitted.up, fitted.down
    scale = (down.norm() / up.norm().clamp(min=1e-30)).sqrt().clamp(min=1e-6)
    with torch.no_grad():
        shift.down.weight.zero_()
        shift.up.weight.zero_()
        shift.down.weight[: len(down)].copy_(down / scale)
        shift.up.weight[:, : len(down)].copy_(up * scale)
        shift.down.bias.zero_()
        shift.up.bias.copy_(fitted.bias)


def described(layer: int, rank: int, fit: Fit, held_out: Moments) -> LayerFit:
    """Return a fit's figures."""
    return LayerFit(layer, rank, fit.ridge, 1 - fit.error / held_out.variance if held_out.variance else 0.0)


def uniform(rank: int, layers: Iterable[int]) -> Ranks:
    """Return the same rank for every layer."""
    return dict.fromkeys(layers, rank)


def within(budget: int, found: OracleReport, width: int) -> Ranks:
    """Return the ranks that spend a budget of parameters where the oracle holds most energy for the stream's size.

    A rank costs 2d + 1, and a layer's first one d more for the bias. One after the other, the rank is bought that
    adds most of the oracle's energy, over that of the activation, for what it costs.

    Raises ActshiftError for a budget under the cheapest rank.
    """
    offers = [(layer.size**2 * gain, layer.layer, rank) for layer in found.layers for rank, gain in _steps(layer)]
    ranks: Ranks = {}
    left = budget
    for worth, layer, rank in sorted(offers, reverse=True):
        cost = (rank - ranks.get(layer, 0)) * (2 * width + 1) + (0 if layer in ranks else width)
        if worth > 0 and rank > ranks.get(layer, 0) and cost <= left:
            ranks[layer], left = rank, left - cost
    if not ranks:
        raise ActshiftError(f"a budget of {budget:,} parameters buys no rank, which takes {3 * width + 1:,}.")
    return ranks


def _steps(layer: Any) -> list[tuple[int, float]]:
    """The mean energy that each rank of a layer adds, up to every rank that was measured."""
    steps, before, reached = [], 0, 0.0
    for rank, energy in layer.energy.items():
        steps += [(one, (energy - reached) / (rank - before)) for one in range(before + 1, rank + 1)]
        before, reached = rank, energy
    return steps
