"""The oracle: the shifts that turn a base model into its fine-tuned twin, and how simple they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, inference, split_tokens, unmasked
from actshift.analysis.extract.model_pair import ModelPair, divergence, logits
from actshift.analysis.extract.report import LayerOracle, OracleReport
from actshift.analysis.regression import Affine, Moments, best_fit

RANKS = (1, 4, 8, 16, 32)
NONLINEAR_STEPS = 100
NONLINEAR_RATE = 1e-3
SPREAD = 0.2
"""How far the code of a fresh nonlinear fit spreads: SiLU is nearly linear there, so it starts as the linear fit."""


def oracle(
    twins: ModelPair,
    batches: Sequence[Batch],
    ranks: Sequence[int] = RANKS,
    nonlinear_rank: int = 8,
    steps: int = NONLINEAR_STEPS,
    on_batch: Callable[[], None] = lambda: None,
) -> OracleReport:
    """Return what the oracle shifts Δh = h_finetuned - h are like: spectrum, predictability, and what they reproduce.

    Each is computed on the stream that the oracle has steered up to there. R² is on held-out rows, of the best
    linear map, of that of each rank, and of a SiLU map of `nonlinear_rank`, trained from the linear one for `steps`
    batches. KL is of the next-token distributions, in nats a token, from the fine-tuned model's.

    Raises ActshiftError for too few tokens, and for activations that are not finite.
    Source: arXiv 2603.00425, oracle steering.
    """
    sums = [(Moments(), Moments(), Moments()) for _ in twins.blocks]
    kl_base, kl_oracle, rows = [], [], 0
    with inference(twins.base, twins.finetuned):
        for batch in batches:
            masks = (batch, *split_tokens(batch, rows))

            def add(layer: int, x: Tensor, shift: Tensor, masks: Sequence[Batch] = masks) -> None:
                for moments, mask in zip(sums[layer], masks, strict=True):
                    moments.add(unmasked(x, mask), unmasked(shift, mask))

            steered = twins.with_oracle(batch, add)
            wanted = logits(twins.finetuned, batch)
            kl_oracle.append(divergence(wanted, steered, masks[2]))
            kl_base.append(divergence(wanted, logits(twins.base, batch), masks[2]))
            rows += len(batch["input_ids"])
            on_batch()
        fits = [best_fit(seen, held_out, (*ranks, nonlinear_rank, width_of(sums))) for _, seen, held_out in sums]
        starts = [fit[nonlinear_rank].map for fit in fits] if steps else []
        nonlinear = _nonlinear(twins, batches, starts, sums, steps, on_batch) if steps else [None] * len(sums)
    layers = []
    for layer, ((whole, _, held_out), fit, error) in enumerate(zip(sums, fits, nonlinear, strict=True)):
        spectrum = whole.spectrum()
        total = sum(spectrum) or 1.0

        def r2(missed: float, against: float = held_out.variance) -> float:
            return 1 - missed / against if against else 0.0

        layers.append(
            LayerOracle(
                layer=layer,
                size=(whole.energy / _stream(whole)) ** 0.5,
                energy={rank: sum(spectrum[:rank]) / total for rank in ranks},
                r2={rank: r2(fit[rank].error) for rank in ranks},
                r2_linear=r2(fit[width_of(sums)].error),
                r2_nonlinear=None if error is None else r2(error),
            )
        )
    base, steered = (torch.cat(one).mean().item() for one in (kl_base, kl_oracle))
    return OracleReport(tuple(layers), tuple(ranks), nonlinear_rank, base, steered, twins.outside)


def width_of(sums: Sequence[tuple[Moments, ...]]) -> int:
    """Return the width d of the stream."""
    return len(sums[0][0].mean_x)


def _stream(moments: Moments) -> float:
    return (moments.covariances()[0].trace() + moments.mean_x.square().sum()).clamp(min=1e-30).item()


def _nonlinear(
    twins: ModelPair,
    batches: Sequence[Batch],
    starts: Sequence[Affine],
    sums: Sequence[tuple[Moments, ...]],
    steps: int,
    on_batch: Callable[[], None],
) -> list[float]:
    """Train a map at every layer at once, a step a batch; return the mean squared errors on held-out rows."""
    maps = [_started(start, moments[1]) for start, moments in zip(starts, sums, strict=True)]
    maps = [one.to(next(twins.base.parameters()).device) for one in maps]
    optimiser = torch.optim.Adam([p for one in maps for p in one.parameters()], lr=NONLINEAR_RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    units = [(_unit(moments[1].covariances()[0]), _unit(moments[1].covariances()[2])) for moments in sums]
    places, offset = [], 0
    for batch in batches:
        places.append(offset)
        offset += len(batch["input_ids"])
    for step in range(steps):
        batch, start = batches[step % len(batches)], places[step % len(batches)]
        mask, losses = split_tokens(batch, start)[0], []

        def learn(layer: int, x: Tensor, shift: Tensor, mask: Batch = mask, losses: list[Tensor] = losses) -> None:
            (unit_x, unit_y), x, shift = units[layer], unmasked(x, mask).float(), unmasked(shift, mask).float()
            with torch.enable_grad():
                losses.append((maps[layer](x / unit_x) - shift / unit_y).square().mean())

        twins.with_oracle(batch, learn)
        with torch.enable_grad():
            torch.stack([loss for loss in losses if loss.isfinite()]).sum().backward()
        optimiser.step()
        rate.step()
        optimiser.zero_grad()
        on_batch()
    return _solved(twins, batches, places, maps, [unit for unit, _ in units], on_batch)


def _solved(
    twins: ModelPair,
    batches: Sequence[Batch],
    places: Sequence[int],
    maps: Sequence[LowRankShift],
    units: Sequence[float],
    on_batch: Callable[[], None],
) -> list[float]:
    """Return the errors on held-out rows, with the best W_up and bias for the codes that were trained."""
    sums = [(Moments(), Moments()) for _ in maps]
    for batch, start in zip(batches, places, strict=True):
        masks = split_tokens(batch, start)

        def add(layer: int, x: Tensor, shift: Tensor, masks: Sequence[Batch] = masks) -> None:
            for moments, mask in zip(sums[layer], masks, strict=True):
                code = F.silu(maps[layer].down(unmasked(x, mask).float() / units[layer]))
                moments.add(code, unmasked(shift, mask))

        twins.with_oracle(batch, add)
        on_batch()
    ranks = [len(one.down.weight) for one in maps]
    return [best_fit(seen, held, [r])[r].error for (seen, held), r in zip(sums, ranks, strict=True)]


def _unit(covariance: Tensor) -> float:
    return covariance.diagonal().mean().clamp(min=1e-30).sqrt().item()


def _started(start: Affine, seen: Moments) -> LowRankShift:
    """Return a SiLU map that begins close to an affine one, with a code small enough for φ(z) ≈ z/2.

    It takes and gives multiples of the typical coordinate, so that one learning rate suits every layer.
    """
    made = LowRank(rank=len(start.down), bias=True).build(start.down.shape[1])
    assert isinstance(made, LowRankShift)
    code = start.down @ seen.covariances()[0] @ start.down.T
    scale = SPREAD / code.diagonal().clamp(min=1e-30).sqrt()
    with torch.no_grad():
        unit_x, unit_y = (_unit(seen.covariances()[which]) for which in (0, 2))
        made.down.weight.copy_(unit_x * scale[:, None] * start.down)
        made.down.bias.copy_(-scale * (start.down @ seen.mean_x))
        made.up.weight.copy_(2 * start.up / scale / unit_y)
        made.up.bias.copy_(seen.mean_y / unit_y)
    return made
