"""A fine-tuned checkpoint becomes an adapter of its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from actshift.adapters.checks import check_rank
from actshift.analysis.capture import Batch, check_tokens
from actshift.analysis.extract.distill import distill, held_out_kl
from actshift.analysis.extract.fit import Ranks, config_for, fit_layers, uniform, within
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS, oracle
from actshift.analysis.extract.report import ExtractReport, LayerFit, OracleReport
from actshift.analysis.extract.store import Store
from actshift.analysis.extract.twins import Twins
from actshift.analysis.heard import Heard, counted
from actshift.head import head_of
from actshift.sites import resolve
from actshift.tuner import attach
from actshift.tuner.heads import name_classes, share_head
from actshift.tuner.layer import CONTAINER


@dataclass(frozen=True)
class Extraction:
    """A steered model, the base with the extracted adapter, and what was found on the way."""

    model: Any
    report: ExtractReport


def extract(
    base: nn.Module,
    finetuned: nn.Module,
    batches: Sequence[Batch],
    rank: int = 8,
    budget: int | None = None,
    distill_steps: int = 0,
    learning_rate: float = 1e-3,
    linear: bool = True,
    ranks: Sequence[int] = RANKS,
    nonlinear_steps: int = NONLINEAR_STEPS,
    folder: str | Path | None = None,
    resume: bool = False,
    heard: Heard = lambda phase, done, total: None,
) -> Extraction:
    """Return the base with a linear post-block adapter that stands for what fine-tuning changed.

    The adapter is fitted in closed form, block by block, on any unlabelled text, and with `distill_steps` trained on KL
    after. `rank` is every block's; a `budget` of parameters is spent unevenly instead, where the oracle is largest.
    With `linear` the same is tried at full rank, to see what any linear map could. In `folder` each fit is kept, and
    `resume` goes on from there. `heard` is told the phase, and how many of its steps are done. A classifier's base is
    given the head of the fine-tuned one, which is saved with the adapter.

    Raises ActshiftError where the two are not versions of one model, there is too little text, or activations are
    not finite.
    Source: the oracle is arXiv 2603.00425's; the extraction is [ours], METHOD §3.
    """
    check_tokens(batches, 4, "the extraction")
    share_head(base, finetuned)
    twins = Twins.of(base, finetuned)
    width = resolve(base, layers=[0])[0].width
    check_rank(rank, width)
    settings = {"rank": rank, "budget": budget, "twins": [_name(base), _name(finetuned)], "width": width}
    store = Store.of(folder, batches, settings, resume) if folder is not None else None
    measured = [one for one in ranks if one <= width]
    steps = nonlinear_steps + 2 * len(batches) if nonlinear_steps else len(batches)
    nonlinear_rank = min(8, max(measured))
    found = oracle(
        twins, batches, measured, nonlinear_rank, nonlinear_steps, counted(heard, "The oracle's shifts", steps)
    )
    kl = {"base": found.kl_base, "oracle": found.kl_oracle}
    layers = range(len(twins.blocks))
    if linear:
        kl["linear"] = _linear(twins, batches, uniform(width, layers), heard)
    chosen = within(budget, found, width) if budget is not None else uniform(rank, layers)
    model = attach(base, config_for(chosen, head_of(base) or "CAUSAL_LM"))
    twins = replace(twins, base=model)
    fits = _fitted(twins, batches, chosen, store, heard)
    kl["closed_form"] = held_out_kl(twins, batches)
    if distill_steps:
        kl["distilled"] = distill(
            twins, batches, distill_steps, learning_rate, counted(heard, "Distillation", distill_steps)
        )
    if store is not None:
        model.save_pretrained(str(store.folder), save_embedding_layers=False)
        name_classes(store.folder, finetuned)
        store.finish()
    return Extraction(model, _report(twins, batches, fits, kl, distill_steps, found))


def _linear(twins: Twins, batches: Sequence[Batch], ranks: Ranks, heard: Heard) -> float:
    """Return the KL that remains with a linear map of every rank at every block; the base is left as it was."""
    grads = {name: p.requires_grad for name, p in twins.base.named_parameters()}
    model = attach(twins.base, config_for(ranks, head_of(twins.base) or "CAUSAL_LM"))
    tried = replace(twins, base=model)
    try:
        fit_layers(tried, batches, ranks, on_batch=counted(heard, "Linear maps", len(ranks) * len(batches)))
        return held_out_kl(tried, batches)
    finally:
        model.unload()
        for name, parameter in twins.base.named_parameters():
            parameter.requires_grad_(grads[name])


def _fitted(twins: Twins, batches: Sequence[Batch], ranks: Ranks, store: Store | None, heard: Heard) -> list[LayerFit]:
    done = store.load(twins.base) if store is not None else {}
    fits = dict(done)

    def keep(fit: LayerFit) -> None:
        fits[fit.layer] = fit
        if store is not None:
            store.save(twins.base, fits)

    count = (len(ranks) - len(done)) * len(batches)
    return fit_layers(twins, batches, ranks, done, keep, counted(heard, "The adapter", count))


def _report(
    twins: Twins,
    batches: Sequence[Batch],
    fits: list[LayerFit],
    kl: dict[str, float],
    distill_steps: int,
    found: OracleReport,
) -> ExtractReport:
    mine = sum(p.numel() for name, p in twins.base.named_parameters() if CONTAINER in name)
    return ExtractReport(
        model=_name(twins.base),
        finetuned=_name(twins.finetuned),
        tokens=sum(int(batch["attention_mask"].sum()) for batch in batches),
        parameters=mine,
        checkpoint=sum(p.numel() for p in twins.finetuned.parameters()),
        layers=tuple(fits),
        kl=kl,
        distill_steps=distill_steps,
        oracle=found,
    )


def _name(model: Any) -> str:
    return getattr(model.config, "name_or_path", "") or type(model).__name__
