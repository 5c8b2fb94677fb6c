"""Run the backward passes of `locate`, and compute gains from the recorded gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actshift.adapters.base import check_rank
from actshift.analysis.locate.gains import SiteGain
from actshift.analysis.locate.report import LocateReport
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
"""The largest rank that a sketch supports. The errors of its further singular values are as large as the values."""


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
    """Estimate how much a small change at each site would lower the loss, from one backward pass per batch.

    At each site and layer, G = Σ_t g_t x_tᵀ is summed over tokens, with the activation x and the gradient g = ∂L/∂x of
    the mean loss L over all targets. A step W_up W_down of rank r and Frobenius norm ε lowers L by at most
    ε √(σ_1² + … + σ_r²), and a vector of norm ε by at most ε ‖Σ g‖. For LoRA on a linear map, x is the input of the
    map and g the gradient at its output. Gradients above 512 × 512 are sketched.

    Nothing is trained, and the model is restored. If it is already steered or has LoRA, the gains belong to a
    further change. Activations differ in size between sites, so gains at different sites share no unit.
    docs/results/locate.md measures how well the ranking predicts the result of training.

    Args:
        model: A model with a loss.
        batches: Keyword arguments of the model, with labels, as `actshift.token_batches` returns them.
        sites: The sites to measure; by default the sites of the residual stream that the model has.
        layers: Indices of blocks; all by default.
        rank: The largest rank to measure.
        weights: Measure LoRA on the linear maps of the blocks too.
        blocks: Name of the list of blocks, if it cannot be found automatically.
        on_batch: Called with the number of finished batches.

    Raises:
        ActshiftError: A site, layer or rank is invalid, or a gradient is not finite.

    Source: this project, docs/method.md#gain-per-parameter; the sites are from arXiv 2603.00425.

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
    group = BatchGroup(GROUPS)
    targets = [TapTarget(Tap(f"{host.site} of block {host.layer}"), host) for host in hosts]
    targets += [TapTarget(Tap(f"{linear.part} of block {linear.layer}"), linear) for linear in maps]
    _check_ranks(targets, rank)
    handles = [target.attach(group) for target in targets]
    stats = backward(model, batches, [target.tap for target in targets], group, handles, on_batch)
    base: Any = unwrap(model)
    return LocateReport(
        model=getattr(base.config, "name_or_path", "") or type(base).__name__,
        parameters=sum(parameter.numel() for name, parameter in base.named_parameters() if "lora_" not in name),
        rank=rank,
        loss=stats.loss,
        targets=sum(stats.targets),
        batches=stats.batches,
        groups=sum(count > 0 for count in stats.targets),
        places=tuple(target.site_gain(stats, rank) for target in targets),
        left_out=left_out,
    )


@dataclass(frozen=True)
class TapTarget:
    """A host or a linear map, and the tap that sums its gradient."""

    tap: Tap
    host: Host | LinearMap

    def attach(self, group: BatchGroup) -> Any:
        """Hook the tap to its module, and return the handle."""
        if isinstance(self.host, Host):
            return tap_host(self.tap, self.host, group)
        return tap_map(self.tap, self.host.module, group)

    @property
    def shape(self) -> tuple[int, int]:
        """The outputs and the inputs of G."""
        if isinstance(self.host, Host):
            return self.host.width, self.host.width
        return self.host.outputs, self.host.inputs

    def site_gain(self, stats: BackwardStats, rank: int) -> SiteGain:
        """Return the gain from the sums of the tap."""
        tap, weight = self.tap, isinstance(self.host, LinearMap)
        outputs, inputs = self.shape
        shares = [stats.shares, *stats.without()]
        if tap.matrix is None or tap.vector is None:  # the loss does not depend on an expert that no token chose
            values, means = [(0.0,) * rank] * len(shares), [0.0] * len(shares)
        else:
            matrix, vector = tap.matrix, tap.vector.double().cpu()
            values = [tuple(matrix.values(share, rank).tolist()) for share in shares]
            means = [(share @ vector).norm().item() for share in shares]
        return SiteGain(
            site=self.host.part if isinstance(self.host, LinearMap) else self.host.site,
            layer=self.host.layer,
            module=self.host.name,
            inputs=inputs,
            outputs=outputs,
            weight=weight,
            sketched=isinstance(tap.matrix, Sketch),
            singular_values=values[0],
            mean=None if weight else means[0],
            singular_values_without=tuple(values[1:]),
            mean_without=() if weight else tuple(means[1:]),
            held_out=_held_out_gains(tap, stats, rank),
        )


def _held_out_gains(tap: Tap, stats: BackwardStats, rank: int) -> tuple[float, ...]:
    """Return, for each rank, the mean gain on one group of the best step over all other groups."""
    pairs = list(zip(stats.without(), stats.alone(), strict=False))  # `without` is empty for a single group
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
    """Return the hosts of the sites, and the reasons why default sites are left out."""
    if sites is not None:
        if isinstance(sites, str) or not sites or len(set(sites)) < len(sites):
            raise ActshiftError(
                f"sites must be a list of at least one site, each once, such as {RESIDUAL}; got {sites!r}."
            )
        for site in sites:
            check_site(site)
        return [host for site in sites for host in resolve(model, site, layers, blocks)], ()
    hosts, left_out = resolve(model, RESIDUAL[0], layers, blocks), list[str]()
    for site in RESIDUAL[1:]:
        try:
            hosts += resolve(model, site, layers, blocks)
        except ActshiftError as error:
            left_out.append(str(error))
    return hosts, tuple(left_out)


def _check_ranks(targets: Sequence[TapTarget], rank: int) -> None:
    for target in targets:
        outputs, inputs = target.shape
        check_rank(rank, min(outputs, inputs))
        if rank > SKETCHED_RANK and outputs * inputs > target.tap.exact_area:
            raise ActshiftError(
                f"Rank {rank} is too high for {target.tap.name}, because its {outputs} × {inputs} gradient is "
                f"sketched. Use a rank up to {SKETCHED_RANK}."
            )
