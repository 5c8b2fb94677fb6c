"""`actshift locate`: where to steer, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actshift.cli.options import Data, DataDir, Limit, Split, Task, head_for_rows, rows_for
from actshift.cli.steered import Adapter, AsJson, Model, TrustRemoteCode, base_of, load_steered, progress_bar
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from torch import Tensor

    from actshift.analysis.locate import LocateReport
    from actshift.tuner import SteeringConfig

LEAST_BATCHES = 8
"""Batches are made smaller where there would be fewer, so that there is a spread over them."""


def locate(
    data: Data = None,
    task: Task = None,
    data_dir: DataDir = None,
    model: Model = None,
    adapter: Adapter = None,
    split: Split = None,
    limit: Limit = 256,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="A site to look at (repeatable; the residual stream's if left out)."),
    ] = None,
    rank: Annotated[
        int, typer.Option("--rank", min=1, help="The largest rank to look at, and that a budget buys.")
    ] = 8,
    weights: Annotated[bool, typer.Option(help="Look at LoRA on the linear maps, too.")] = True,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Parameters to spend: a share of the model, or a number from 1 up.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write what the budget buys to this JSON file, for train --interventions."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw the heat map to this .png or .svg file.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")] = 8,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Longest row in tokens.")] = 512,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show where a small change lowers a task's loss most: by site, layer and rank, and by LoRA on each linear map.

    One backward pass a batch is all it takes. With --budget it says what to train, and --out writes it down.
    """
    from actshift.files import check_writable

    if out is not None and budget is None:
        raise ActshiftError("--out writes what a budget buys; add --budget, such as 0.0004.")
    for path in (out, figure):
        if path is not None:
            check_writable(path)
    adapters = [adapter] if adapter else []
    rows = rows_for(model or base_of(adapters), data, task, data_dir, split, limit)
    head = head_for_rows(model or base_of(adapters), task, rows)
    loaded, tokenizer, _ = load_steered(model, adapters, 1.0, trust_remote_code, head=head)

    from actshift.analysis.batches import token_batches
    from actshift.model_head import head_of, labels_of

    size = max(1, min(batch_size, len(rows) // LEAST_BATCHES))
    batches = token_batches(rows, tokenizer, size, max_length, labels_of(loaded.config))
    report = _measured(loaded, batches, site, rank, weights)
    config = report.to_config(budget, task_type=head_of(loaded)) if budget is not None else None
    _show(report, config, as_json)
    _write(report, config, out, figure)


def _measured(model: Any, batches: list[dict[str, Tensor]], sites: Any, rank: int, weights: bool) -> LocateReport:
    from actshift.analysis import locate as package

    with progress_bar() as heard:
        return package.locate(
            model,
            batches,
            sites=sites or None,
            rank=rank,
            weights=weights,
            on_batch=lambda done: heard("Backward passes", done, len(batches)),
        )


def _show(report: LocateReport, config: SteeringConfig | None, as_json: bool) -> None:
    import json

    from rich.console import Console

    if as_json:
        bought = {"steering": config.steering_dict()} if config else {}
        typer.echo(json.dumps({**report.to_dict(), **bought}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(report)
    if config is not None:
        console.print(_bought(report, config))


def _bought(report: LocateReport, config: SteeringConfig) -> str:
    """Say what a budget buys, a line for each rank at each site."""
    lines, spent = [], 0
    for one in config.all_interventions:
        width = next(place.outputs for place in report.at(one.site))
        layers = one.layers or ()
        spent += one.adapter.parameter_count(width) * len(layers)
        lines.append(f"  {one.site} rank {getattr(one.adapter, 'rank', 0)} in block {', '.join(map(str, layers))}")
    return "\n".join([f"The budget buys {spent:,} parameters, {spent / report.parameters:.3%} of the model:", *lines])


def _write(report: LocateReport, config: SteeringConfig | None, out: Path | None, figure: Path | None) -> None:
    import json

    from actshift.files import write_whole

    if out is not None and config is not None:
        interventions = [one.to_dict() for one in config.all_interventions]
        write_whole(out, json.dumps({"interventions": interventions}, indent=2) + "\n")
    if figure is not None:
        report.figure().savefig(figure)
