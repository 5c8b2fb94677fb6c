"""Run the backward passes of `locate`, and compute gains from the recorded gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from actshift.adapters.base import check_rank
from actshift.analysis.capture import model_name
from actshift.analysis.locate.gains import SiteGain
from actshift.analysis.locate.report import LocateReport
from actshift.errors import ActshiftError
from actshift.gradients.backward import BackwardStats, Batch, OnBatch, backward
from actshift.gradients.sketch import SIZE, ExactSum, Factors, Sketch
from actshift.gradients.taps import BatchGroup, LinearMap, Tap, linear_maps, tap_host, tap_map
from actshift.sites import SITES, Host, resolve
from actshift.sites.blocks import unwrap

RESIDUAL = tuple(name for name, site in SITES.items() if not site.at_heads)
GROUPS = 8
SKETCHED_RANK = SIZE // 2  # a sketch supports no larger rank: its errors are as large as the further singular values


def locate(
    model: nn.Module,
    batches: Iterable[Batch],
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    rank: int = 8,
    weights: bool = True,
    blocks: str | None = None,
    on_batch: OnBatch = None,
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
        batches: Keyword arguments of the model, with labels, as `actshift.token_batches` returns them.
        sites: The sites to measure; by default the sites of the residual stream that the model has.
        layers: Indices of blocks; all by default.
        weights: Measure LoRA on the linear maps of the blocks too.
        blocks: Name of the list of blocks, if it cannot be found automatically.

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
    places: list[tuple[Host | LinearMap, Tap]] = [(host, Tap(f"{host.site} of block {host.layer}")) for host in hosts]
    places += [(linear, Tap(f"{linear.part} of block {linear.layer}")) for linear in maps]
    _check_ranks(places, rank)
    group = BatchGroup(GROUPS)
    handles = [tap_host(t, h, group) if isinstance(h, Host) else tap_map(t, h.module, group) for h, t in places]
    stats = backward(model, batches, [tap for _, tap in places], group, handles, on_batch)
    base: Any = unwrap(model)
    return LocateReport(
        model=model_name(base),
        parameters=sum(parameter.numel() for name, parameter in base.named_parameters() if "lora_" not in name),
        rank=rank,
        loss=stats.loss,
        targets=sum(stats.targets),
        batches=stats.batches,
        groups=sum(count > 0 for count in stats.targets),
        places=tuple(_site_gain(host, tap, stats, rank) for host, tap in places),
        left_out=left_out,
    )


def _shape(host: Host | LinearMap) -> tuple[int, int]:
    """Return the outputs and the inputs of G."""
    return (host.width, host.width) if isinstance(host, Host) else (host.outputs, host.inputs)


def _site_gain(host: Host | LinearMap, tap: Tap, stats: BackwardStats, rank: int) -> SiteGain:
    weight = isinstance(host, LinearMap)
    outputs, inputs = _shape(host)
    shares = torch.stack([stats.shares, *stats.without()])
    values, means, held_out = torch.zeros(len(shares), rank), torch.zeros(len(shares)), ()
    if tap.matrix is not None and tap.vector is not None:  # no token may have chosen an expert
        factors = tap.matrix.factors(shares, rank)
        values, means = factors.values, (shares @ tap.vector.double().cpu()).norm(dim=1)
        held_out = _held_out_gains(tap.matrix, stats, factors)
    return SiteGain(
        site=host.part if isinstance(host, LinearMap) else host.site,
        layer=host.layer,
        module=host.name,
        inputs=inputs,
        outputs=outputs,
        weight=weight,
        sketched=isinstance(tap.matrix, Sketch),
        singular_values=tuple(values[0].tolist()),
        mean=None if weight else means[0].item(),
        singular_values_without=tuple(map(tuple, values[1:].tolist())),
        mean_without=() if weight else tuple(means[1:].tolist()),
        held_out=held_out,
    )


def _held_out_gains(matrix: ExactSum | Sketch, stats: BackwardStats, factors: Factors) -> tuple[float, ...]:
    """Return, for each rank, the mean gain on one group of the best step over all other groups, () for one group.

    `factors` are those of the mean over all groups, and then of the means that leave one out.
    """
    steps = Factors(*(part[1:] for part in factors))
    if not len(steps.values):
        return ()
    along = matrix.along(torch.stack(stats.alone()), steps)
    gains = (steps.values * along).cumsum(-1) / steps.values.square().cumsum(-1).sqrt()
    return tuple(gains.nan_to_num().double().mean(0).tolist())


def _hosts(
    model: nn.Module, sites: Sequence[str] | None, layers: Sequence[int] | None, blocks: str | None
) -> tuple[list[Host], tuple[str, ...]]:
    """Return the hosts of the sites, and the reasons why default sites are left out."""
    if sites is not None:
        if isinstance(sites, str) or not sites or len(set(sites)) < len(sites):
            raise ActshiftError(f"sites must be a list of at least one site, each once; got {sites!r}.")
        return [host for site in sites for host in resolve(model, site, layers, blocks)], ()
    hosts, left_out = resolve(model, RESIDUAL[0], layers, blocks), list[str]()
    for site in RESIDUAL[1:]:
        try:
            hosts += resolve(model, site, layers, blocks)
        except ActshiftError as error:
            left_out.append(str(error))
    return hosts, tuple(left_out)


def _check_ranks(places: Iterable[tuple[Host | LinearMap, Tap]], rank: int) -> None:
    for host, tap in places:
        outputs, inputs = _shape(host)
        check_rank(rank, min(outputs, inputs))
        if rank > SKETCHED_RANK and outputs * inputs > tap.exact_area:
            sketched = f"its {outputs} × {inputs} gradient is sketched. Use a rank up to {SKETCHED_RANK}"
            raise ActshiftError(f"Rank {rank} is too high for {tap.name}, because {sketched}.")
