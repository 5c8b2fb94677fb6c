"""The oracle: the shifts that turn a base model into its fine-tuned version, and how simple they are."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, Batches, inference, split_batches, unmasked
from actshift.analysis.extract.model_pair import ModelPair, Step, divergence, logits
from actshift.analysis.extract.report import LayerOracle, OracleReport
from actshift.analysis.regression import Affine, Fit, Moments, best_fit

RANKS = (1, 4, 8, 16, 32)
NONLINEAR_STEPS = 100
NONLINEAR_RATE = 1e-3
CACHE = 2**30  # bytes of activations that are kept, because each of a few batches is used for many steps
SPREAD = 0.2  # standard deviation of the code of a fresh nonlinear map; SiLU is nearly linear at this scale
LayerMoments = tuple[Moments, Moments, Moments]
"""Moments of the activation and the oracle shift of one layer: all tokens, tokens to fit, and validation tokens."""


def oracle(
    pair: ModelPair,
    batches: Batches,
    ranks: Sequence[int] = RANKS,
    nonlinear_rank: int = 8,
    steps: int = NONLINEAR_STEPS,
    on_batch: Step = lambda: None,
) -> OracleReport:
    """Measure the oracle shifts Δh = h_finetuned - h: their spectrum, predictability and effect on the predictions.

    Each shift is computed on the stream that the oracle has already shifted at earlier blocks. R² and KL are measured
    on every third row, and the maps are fitted on the others. R² is reported for the best linear map of each rank and
    of full rank, and for a SiLU map of `nonlinear_rank`, which is trained for `steps` batches from the linear one
    (0 skips it). KL is measured from the fine-tuned model's predictions, in nats per token. `on_batch` is called after
    each pass over a batch.

    Raises:
        ActshiftError: There are too few tokens, or activations are not finite.

    Source: arXiv 2603.00425, oracle steering; docs/method.md#oracle.
    """
    moments: list[LayerMoments] = [(Moments(), Moments(), Moments()) for _ in pair.blocks]
    with inference(pair.base, pair.finetuned):
        kl_base, kl_oracle = _measure_shifts(pair, batches, moments, on_batch)
        width = len(moments[0][0].mean_x)
        fits = [best_fit(fitted, validation, (*ranks, nonlinear_rank, width)) for _, fitted, validation in moments]
        linear = [fit[nonlinear_rank].map for fit in fits]
        errors = _nonlinear_errors(pair, batches, linear, moments, steps, on_batch) if steps else [None] * len(moments)
    layers = tuple(
        _layer_oracle(index, of_layer, {rank: fit[rank] for rank in ranks}, fit[width], error)
        for index, (of_layer, fit, error) in enumerate(zip(moments, fits, errors, strict=True))
    )
    return OracleReport(layers, tuple(ranks), nonlinear_rank, kl_base, kl_oracle, pair.outside)


def _measure_shifts(pair: ModelPair, batches: Batches, moments: list[LayerMoments], step: Step) -> tuple[float, float]:
    """Add all batches to the moments; return the mean KL on validation rows of the base without and with the oracle."""
    kl_base: list[Tensor] = []
    kl_oracle: list[Tensor] = []

    def add(masks: Sequence[Batch], layer: int, x: Tensor, shift: Tensor) -> None:
        for part, mask in zip(moments[layer], masks, strict=True):
            part.add(unmasked(x, mask), unmasked(shift, mask))

    for batch, (fitted, validation) in zip(batches, split_batches(batches), strict=True):
        steered = pair.oracle_logits(batch, partial(add, (batch, fitted, validation)))
        finetuned = logits(pair.finetuned, batch)
        kl_oracle.append(divergence(finetuned, steered, validation))
        kl_base.append(divergence(finetuned, logits(pair.base, batch), validation))
        step()
    return torch.cat(kl_base).mean().item(), torch.cat(kl_oracle).mean().item()


def _layer_oracle(
    index: int, moments: LayerMoments, fits: dict[int, Fit], linear: Fit, nonlinear_error: float | None
) -> LayerOracle:
    everything, _, validation = moments
    spectrum = everything.spectrum()
    stream = everything.covariances()[0].trace() + everything.mean_x.square().sum()
    return LayerOracle(
        layer=index,
        size=(everything.energy / stream.clamp(min=1e-30).item()) ** 0.5,
        energy={rank: sum(spectrum[:rank]) / (sum(spectrum) or 1.0) for rank in fits},
        r2={rank: validation.r2(fit.error) for rank, fit in fits.items()},
        r2_linear=validation.r2(linear.error),
        r2_nonlinear=None if nonlinear_error is None else validation.r2(nonlinear_error),
    )


def _nonlinear_errors(
    pair: ModelPair, batches: Batches, linear: list[Affine], moments: list[LayerMoments], steps: int, on_batch: Step
) -> list[float]:
    """Train SiLU maps for all layers together, and return their mean squared errors on validation rows."""
    fits, device = [fitted for _, fitted, _ in moments], next(pair.base.parameters()).device
    units = [_units(fitted) for fitted in fits]
    maps = [_silu_map(*values).to(device) for values in zip(linear, fits, units, strict=True)]
    optimizer = torch.optim.Adam([p for silu_map in maps for p in silu_map.parameters()], lr=NONLINEAR_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    masks = [fitted for fitted, _ in split_batches(batches)]
    cache: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
    room = CACHE

    def read(seen: list[tuple[int, Tensor, Tensor]], mask: Batch, layer: int, x: Tensor, shift: Tensor) -> None:
        (unit_x, unit_y), x, shift = units[layer], unmasked(x, mask).float(), unmasked(shift, mask).float()
        seen.append((layer, x / unit_x, shift / unit_y))

    for step in range(steps):
        index = step % len(batches)
        if (seen := cache.get(index)) is None:
            seen = []
            pair.oracle_logits(batches[index], partial(read, seen, masks[index]))
            if (size := sum(x.nbytes + shift.nbytes for _, x, shift in seen)) <= room:
                cache[index], room = seen, room - size
        with torch.enable_grad():
            losses = [(maps[layer](x) - shift).square().mean() for layer, x, shift in seen]
            torch.stack([loss for loss in losses if loss.isfinite()]).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_batch()
    return _refitted_errors(pair, batches, maps, [unit_x for unit_x, _ in units], on_batch)


def _units(moments: Moments) -> tuple[float, float]:
    """Return the root mean variances of a coordinate of the activation and of the shift."""
    xx, _, yy = moments.covariances()
    x, y = (covariance.diagonal().mean().clamp(min=1e-30).sqrt().item() for covariance in (xx, yy))
    return x, y


def _silu_map(affine: Affine, fitted: Moments, units: tuple[float, float]) -> LowRankShift:
    """Return a SiLU map close to an affine one: its code is small, so φ(z) ≈ z/2. x and y are divided by `units`."""
    unit_x, unit_y = units
    silu_map = LowRank(rank=len(affine.down), bias=True).build(affine.down.shape[1])
    assert isinstance(silu_map, LowRankShift)
    code = affine.down @ fitted.covariances()[0] @ affine.down.T
    scale = SPREAD / code.diagonal().clamp(min=1e-30).sqrt()
    with torch.no_grad():
        silu_map.down.weight.copy_(unit_x * scale[:, None] * affine.down)
        silu_map.down.bias.copy_(-scale * (affine.down @ fitted.mean_x))
        silu_map.up.weight.copy_(2 * affine.up / scale / unit_y)
        silu_map.up.bias.copy_(fitted.mean_y / unit_y)
    return silu_map


def _refitted_errors(
    pair: ModelPair, batches: Batches, maps: list[LowRankShift], units: list[float], on_batch: Step
) -> list[float]:
    """Return the errors on validation rows with the best W_up and bias for the trained codes."""
    sums = [(Moments(), Moments()) for _ in maps]

    def add(masks: Sequence[Batch], layer: int, x: Tensor, shift: Tensor) -> None:
        for moments, mask in zip(sums[layer], masks, strict=True):
            code = F.silu(maps[layer].down(unmasked(x, mask).float() / units[layer]))
            moments.add(code, unmasked(shift, mask))

    for batch, masks in zip(batches, split_batches(batches), strict=True):
        pair.oracle_logits(batch, partial(add, masks))
        on_batch()
    rank = len(maps[0].down.weight)
    return [best_fit(*moments, [rank])[rank].error for moments in sums]
