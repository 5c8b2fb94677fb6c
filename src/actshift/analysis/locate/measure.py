"""Run the backward passes, and read gains off what the taps hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actshift.adapters.base import check_rank
from actshift.analysis.locate.report import LocateReport, SiteGain
from actshift.errors import ActshiftError
from actshift.gradients import (
    BackwardStats,
    Batch,
    BatchGroup,
    LinearMap,
    Tap,
    backward,
    linear_maps,
    tap_host,
    tap_map,
)
from actshift.gradients.sketch import SIZE, Sketch
from actshift.sites import SITES, Host, check_site, resolve
from actshift.sites.blocks import unwrap

RESIDUAL = tuple(name for name, site in SITES.items() if not site.at_heads)
GROUPS = 8
SKETCHED_RANK = SIZE // 2
"""The largest rank asked of a sketch: the errors of its last singular values are as large as they are."""


def locate(
    model: nn.Module,
    batches: Iterable[Batch],
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    rank: int = 8,
    weights: bool = True,
    blocks: str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> LocateReport:
    """Return where a small change would lower the loss most, to first order, from one backward pass a batch.

    At each site and layer G = Σ_t g_t x_tᵀ is summed over tokens, x an activation and g = ∂L/∂x of the mean loss L over
    all targets; a step W_up W_down of rank r and Frobenius norm ε there lowers L by at most ε √(σ_1² + … + σ_r²), a
    vector of norm ε by ε ‖Σ g‖, and LoRA on a linear map as G does with that map's input and its output's gradient.
    A norm is not a unit that sites share: activations are larger after the block than in its branches. How far the
    ranking foresees what training reaches, docs/results/locate.md measures: in part on one model, not on another.

    `batches` are mappings of what the model is called with, labels among them (`actshift.token_batches` makes them).
    `sites` are by default the three of the residual stream that the model has; `weights` are the linear maps of its
    blocks. Of a matrix above 512 × 512 a sketch is summed. Nothing is trained, and the model is left as it was; one
    that is steered already, or has LoRA, is looked at as it is, and the gains are those of a further change.
    `on_batch` hears the number of batches done.

    Raises ActshiftError for unknown sites, layers, ranks, and for data that gives no finite gradient.
    Source: [ours], METHOD §3; the sites are those of arXiv 2603.00425.

    >>> from actshift.analysis.batches import token_batches
    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> report = locate(model, token_batches(["what is the largest of three and four ?"], tokenizer))
    >>> report.sites, len(report.at("post_block"))
    (('post_block', 'post_mlp', 'post_attention'), 6)
    """
    check_rank(rank)
    hosts, left_out = _hosts(model, sites, layers, blocks)
    maps = linear_maps(model, layers, blocks) if weights else []
    clock = BatchGroup(GROUPS)
    tapped = [Tapped(Tap(f"{one.site} of block {one.layer}"), one) for one in hosts]
    tapped += [Tapped(Tap(f"{one.part} of block {one.layer}"), one) for one in maps]
    _check_width(tapped, rank)
    seen = backward(model, batches, [one.tap for one in tapped], clock, [one.attach(clock) for one in tapped], on_batch)
    base: Any = unwrap(model)
    return LocateReport(
        model=getattr(base.config, "name_or_path", "") or type(base).__name__,
        parameters=sum(one.numel() for name, one in base.named_parameters() if "lora_" not in name),
        rank=rank,
        loss=seen.loss,
        targets=sum(seen.targets),
        batches=seen.batches,
        groups=sum(count > 0 for count in seen.targets),
        places=tuple(one.place(seen, rank) for one in tapped),
        left_out=left_out,
    )


@dataclass(frozen=True)
class Tapped:
    """A host or a linear map with its tap."""

    tap: Tap
    where: Host | LinearMap

    def attach(self, clock: BatchGroup) -> Any:
        """Hook the tap on to its module."""
        if isinstance(self.where, Host):
            return tap_host(self.tap, self.where, clock)
        return tap_map(self.tap, self.where.module, clock)

    @property
    def shape(self) -> tuple[int, int]:
        """The outputs and inputs of G."""
        if isinstance(self.where, Host):
            return self.where.width, self.where.width
        return self.where.outputs, self.where.inputs

    def place(self, seen: BackwardStats, rank: int) -> SiteGain:
        """Read the gains off what the tap holds."""
        tap, weight = self.tap, isinstance(self.where, LinearMap)
        outputs, inputs = self.shape
        shares = [seen.shares, *seen.without()]
        if tap.matrix is None or tap.vector is None:  # the loss does not depend on it: an expert that no token chose
            values, means = [(0.0,) * rank] * len(shares), [0.0] * len(shares)
        else:
            matrix, vector = tap.matrix, tap.vector.double().cpu()
            values = [tuple(matrix.values(share, rank).tolist()) for share in shares]
            means = [(share @ vector).norm().item() for share in shares]
        return SiteGain(
            site=self.where.part if isinstance(self.where, LinearMap) else self.where.site,
            layer=self.where.layer,
            module=self.where.name,
            inputs=inputs,
            outputs=outputs,
            weight=weight,
            sketched=isinstance(tap.matrix, Sketch),
            singular_values=values[0],
            mean=None if weight else means[0],
            singular_values_without=tuple(values[1:]),
            mean_without=() if weight else tuple(means[1:]),
            held_out=_held_out(tap, seen, rank),
        )


def _held_out(tap: Tap, seen: BackwardStats, rank: int) -> tuple[float, ...]:
    """By rank: what the best step over all groups but one takes off the loss of that one, the mean over groups."""
    pairs = list(zip(seen.without(), seen.alone(), strict=False))  # of one group alone nothing is left out
    if tap.matrix is None or not pairs:
        return ()
    sums = torch.zeros(rank, dtype=torch.float64)
    for without, alone in pairs:
        step = tap.matrix.factors(without, rank)
        gains = (step.values * tap.matrix.along(alone, step)).cumsum(0) / step.values.square().cumsum(0).sqrt()
        sums += gains.nan_to_num().double().cpu()
    return tuple((sums / len(pairs)).tolist())


def _hosts(
    model: nn.Module, sites: Sequence[str] | None, layers: Sequence[int] | None, blocks: str | None
) -> tuple[list[Host], tuple[str, ...]]:
    if sites is not None:
        if isinstance(sites, str) or not sites or len(set(sites)) < len(sites):
            raise ActshiftError(
                f"sites must be a list of at least one site, each once, such as {RESIDUAL}; got {sites!r}."
            )
        for site in sites:
            check_site(site)
        return [host for site in sites for host in resolve(model, site, layers, blocks)], ()
    hosts, left_out = resolve(model, RESIDUAL[0], layers, blocks), []
    for site in RESIDUAL[1:]:
        try:
            hosts += resolve(model, site, layers, blocks)
        except ActshiftError as error:
            left_out.append(str(error))
    return hosts, tuple(left_out)


def _check_width(tapped: Sequence[Tapped], rank: int) -> None:
    for one in tapped:
        check_rank(rank, min(one.shape))
        if rank > SKETCHED_RANK and one.shape[0] * one.shape[1] > one.tap.exact_area:
            raise ActshiftError(
                f"Rank {rank} is too high for {one.tap.name}, whose {one.shape[0]} × {one.shape[1]} gradient is "
                f"sketched; use a rank up to {SKETCHED_RANK}."
            )
