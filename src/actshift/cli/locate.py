"""`actshift locate`: the places where steering would help most, before anything is trained."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered, resolve_base
from actshift.cli.output import check_outputs, print_json, print_tables, progress_bar, save_report_figure
from actshift.cli.rows import head_for_rows, limit_batch_size, limit_length, rows_for
from actshift.errors import ActshiftError
from actshift.files import write_atomically

if TYPE_CHECKING:
    from actshift.analysis.locate import LocateReport
    from actshift.tuner import SteeringConfig


def locate(
    data: options.Data = None,
    columns: options.Columns = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    model: options.Model = None,
    adapter: options.Adapter = None,
    split: options.Split = None,
    limit: options.Limit = 256,
    site: Annotated[list[str] | None, Option(help="Site to measure (repeatable). Default: residual sites.")] = None,
    rank: Annotated[
        int, Option(min=1, max=options.LARGEST, help="Largest rank to measure, and to spend a budget on.")
    ] = 8,
    weights: Annotated[bool, Option(help="Also measure LoRA on each linear map.")] = True,
    budget: Annotated[float | None, Option(help="Parameters to spend; below 1, a share of the model.")] = None,
    out: Annotated[Path | None, Option(help="JSON file for what the budget buys, for train --interventions.")] = None,
    figure: options.Figure = None,
    batch_size: options.BatchSize = 8,
    max_length: options.MaxLength = 512,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Find the sites, layers and ranks at which a small change reduces a task's loss most.

    This takes one backward pass per batch. Add --budget to choose the interventions to train, and --out to save them.
    """
    if out is not None and budget is None:
        raise ActshiftError("--out saves what a budget buys. Add --budget, such as --budget 0.0004.")
    check_outputs(out, figure=figure)
    adapters = [adapter] if adapter else []
    base = resolve_base(model, adapters, revision)
    rows = rows_for(base, data, task, data_dir, split, limit, columns)
    head = head_for_rows(base, task, rows)
    loaded, tokenizer, _ = load_steered(
        base.source, adapters, None, trust_remote_code, head=head, revision=base.revision
    )

    from actshift.analysis import locate as analysis
    from actshift.analysis.batches import token_batches
    from actshift.model_head import head_of, labels_of

    size = limit_batch_size(batch_size, len(rows))
    batches = token_batches(
        rows, tokenizer, size, limit_length(max_length, loaded, tokenizer), labels_of(loaded.config)
    )
    with progress_bar() as update:
        on_batch = partial(update, "Backward passes", total=len(batches))
        report = analysis.locate(loaded, batches, sites=site or None, rank=rank, weights=weights, on_batch=on_batch)
    config = report.to_config(budget, task_type=head_of(loaded)) if budget is not None else None
    if out is not None and config is not None:
        interventions = [intervention.to_dict() for intervention in config.all_interventions]
        write_atomically(out, json.dumps({"interventions": interventions}, indent=2) + "\n")
    save_report_figure(report, figure)
    if as_json:
        print_json({**report.to_dict(), **({"steering": config.steering_dict()} if config else {})})
    else:
        print_tables(report, *([_describe_budget(report, config)] if config else []))


def _describe_budget(report: LocateReport, config: SteeringConfig) -> str:
    """Return the parameters that a budget buys, with one line for each rank at each site."""
    lines, spent = [], 0
    for intervention in config.all_interventions:
        width = next(place.outputs for place in report.at(intervention.site))
        layers = intervention.layers or ()
        spent += intervention.adapter.parameter_count(width) * len(layers)
        rank = getattr(intervention.adapter, "rank", 0)
        lines.append(f"  {intervention.site} rank {rank} in block {', '.join(map(str, layers))}")
    return "\n".join([f"The budget buys {spent:,} parameters, {spent / report.parameters:.3%} of the model:", *lines])
