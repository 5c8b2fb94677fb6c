"""The oracle: the shifts that turn a base model into its fine-tuned version, and how simple they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from actshift.adapters import LowRank
from actshift.adapters.low_rank import LowRankShift
from actshift.analysis.capture import Batch, inference, row_offsets, split_tokens, unmasked
from actshift.analysis.extract.model_pair import ModelPair, divergence, logits
from actshift.analysis.extract.report import LayerOracle, OracleReport
from actshift.analysis.regression import Affine, Fit, Moments, best_fit

RANKS = (1, 4, 8, 16, 32)
NONLINEAR_STEPS = 100
NONLINEAR_RATE = 1e-3
SPREAD = 0.2
"""Standard deviation of the code of a fresh nonlinear map. SiLU is nearly linear at this scale."""


@dataclass(frozen=True)
class LayerMoments:
    """Moments of the activation and the oracle shift of one layer: all tokens, tokens to fit, and validation tokens."""

    all: Moments = field(default_factory=Moments)
    fitted: Moments = field(default_factory=Moments)
    validation: Moments = field(default_factory=Moments)

    @property
    def units(self) -> tuple[float, float]:
        """The root mean variances of a coordinate of the activation and of the shift, over the tokens to fit."""
        xx, _, yy = self.fitted.covariances()
        x, y = (covariance.diagonal().mean().clamp(min=1e-30).sqrt().item() for covariance in (xx, yy))
        return x, y


def oracle(
    pair: ModelPair,
    batches: Sequence[Batch],
    ranks: Sequence[int] = RANKS,
    nonlinear_rank: int = 8,
    steps: int = NONLINEAR_STEPS,
    on_batch: Callable[[], None] = lambda: None,
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
    moments = [LayerMoments() for _ in pair.blocks]
    with inference(pair.base, pair.finetuned):
        kl_base, kl_oracle = _measure_shifts(pair, batches, moments, on_batch)
        width = len(moments[0].all.mean_x)
        fits = [best_fit(layer.fitted, layer.validation, (*ranks, nonlinear_rank, width)) for layer in moments]
        linear = [fit[nonlinear_rank].map for fit in fits]
        errors = _nonlinear_errors(pair, batches, linear, moments, steps, on_batch) if steps else [None] * len(moments)
    layers = tuple(
        _layer_oracle(index, layer, {rank: fit[rank] for rank in ranks}, fit[width], error)
        for index, (layer, fit, error) in enumerate(zip(moments, fits, errors, strict=True))
    )
    return OracleReport(layers, tuple(ranks), nonlinear_rank, kl_base, kl_oracle, pair.outside)


def _measure_shifts(
    pair: ModelPair, batches: Sequence[Batch], moments: Sequence[LayerMoments], on_batch: Callable[[], None]
) -> tuple[float, float]:
    """Add all batches to the moments; return the mean KL on validation rows of the base without and with the oracle."""
    kl_base: list[Tensor] = []
    kl_oracle: list[Tensor] = []
    for batch, offset in zip(batches, row_offsets(batches), strict=True):
        masks = (batch, *split_tokens(batch, offset))

        def add(layer: int, x: Tensor, shift: Tensor, masks: Sequence[Batch] = masks) -> None:
            sums = moments[layer]
            for part, mask in zip((sums.all, sums.fitted, sums.validation), masks, strict=True):
                part.add(unmasked(x, mask), unmasked(shift, mask))

        steered = pair.oracle_logits(batch, add)
        finetuned = logits(pair.finetuned, batch)
        kl_oracle.append(divergence(finetuned, steered, masks[2]))
        kl_base.append(divergence(finetuned, logits(pair.base, batch), masks[2]))
        on_batch()
    return torch.cat(kl_base).mean().item(), torch.cat(kl_oracle).mean().item()


def _layer_oracle(
    index: int, moments: LayerMoments, fits: dict[int, Fit], linear: Fit, nonlinear_error: float | None
) -> LayerOracle:
    spectrum, variance = moments.all.spectrum(), moments.validation.variance
    total = sum(spectrum) or 1.0
    stream = moments.all.covariances()[0].trace() + moments.all.mean_x.square().sum()

    def r2(error: float) -> float:
        return 1 - error / variance if variance else 0.0

    return LayerOracle(
        layer=index,
        size=(moments.all.energy / stream.clamp(min=1e-30).item()) ** 0.5,
        energy={rank: sum(spectrum[:rank]) / total for rank in fits},
        r2={rank: r2(fit.error) for rank, fit in fits.items()},
        r2_linear=r2(linear.error),
        r2_nonlinear=None if nonlinear_error is None else r2(nonlinear_error),
    )


def _nonlinear_errors(
    pair: ModelPair,
    batches: Sequence[Batch],
    linear: Sequence[Affine],
    moments: Sequence[LayerMoments],
    steps: int,
    on_batch: Callable[[], None],
) -> list[float]:
    """Train SiLU maps for all layers together, and return their mean squared errors on validation rows."""
    device, offsets = next(pair.base.parameters()).device, row_offsets(batches)
    units = [layer.units for layer in moments]
    maps = [
        _silu_map(affine, layer.fitted, *unit).to(device)
        for affine, layer, unit in zip(linear, moments, units, strict=True)
    ]
    optimizer = torch.optim.Adam([p for silu_map in maps for p in silu_map.parameters()], lr=NONLINEAR_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        index = step % len(batches)
        mask, _ = split_tokens(batches[index], offsets[index])
        losses: list[Tensor] = []

        def learn(layer: int, x: Tensor, shift: Tensor, mask: Batch = mask, losses: list[Tensor] = losses) -> None:
            (unit_x, unit_y), x, shift = units[layer], unmasked(x, mask).float(), unmasked(shift, mask).float()
            with torch.enable_grad():
                losses.append((maps[layer](x / unit_x) - shift / unit_y).square().mean())

        pair.oracle_logits(batches[index], learn)
        with torch.enable_grad():
            torch.stack([loss for loss in losses if loss.isfinite()]).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_batch()
    return _refitted_errors(pair, batches, maps, [unit_x for unit_x, _ in units], on_batch)


def _silu_map(affine: Affine, fitted: Moments, unit_x: float, unit_y: float) -> LowRankShift:
    """Return a SiLU map close to an affine one, with a code small enough for φ(z) ≈ z/2.

    Its inputs and outputs are in units of the typical coordinate, so one learning rate suits every layer.
    """
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
    pair: ModelPair,
    batches: Sequence[Batch],
    maps: Sequence[LowRankShift],
    units: Sequence[float],
    on_batch: Callable[[], None],
) -> list[float]:
    """Return the errors on validation rows with the best W_up and bias for the trained codes."""
    sums = [(Moments(), Moments()) for _ in maps]
    for batch, offset in zip(batches, row_offsets(batches), strict=True):
        masks = split_tokens(batch, offset)

        def add(layer: int, x: Tensor, shift: Tensor, masks: Sequence[Batch] = masks) -> None:
            for moments, mask in zip(sums[layer], masks, strict=True):
                code = F.silu(maps[layer].down(unmasked(x, mask).float() / units[layer]))
                moments.add(code, unmasked(shift, mask))

        pair.oracle_logits(batch, add)
        on_batch()
    ranks = [len(silu_map.down.weight) for silu_map in maps]
    return [best_fit(*moments, [rank])[rank].error for moments, rank in zip(sums, ranks, strict=True)]
