"""`actshift equivalence`: what a weight update amounts to as activation shifts, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actshift.cli.options import Data, DataDir, Limit, Split, Task, rows_for
from actshift.cli.steered import (
    Adapter,
    AsJson,
    BatchSize,
    MaxLength,
    Model,
    Strength,
    TrustRemoteCode,
    base_of_twin,
    load_steered,
    load_twins,
    progress_bar,
    show,
)
from actshift.errors import ActshiftError


def equivalence(
    model: Model = None,
    updated: Annotated[
        str | None, typer.Option("--updated", help="The fine-tuned model, or a LoRA for it: a folder or an id.")
    ] = None,
    adapter: Adapter = None,
    data: Data = None,
    task: Task = None,
    data_dir: DataDir = None,
    split: Split = None,
    limit: Limit = 64,
    rank: Annotated[int, typer.Option("--rank", min=1, help="The rank to ask of post-MLP and post-block.")] = 8,
    strength: Strength = 1.0,
    batch_size: BatchSize = 8,
    max_length: MaxLength = 256,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw it to this .png or .svg file.")] = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show a weight update as activation shifts, by layer, and what steering at each site could copy of it.

    With --adapter, a linear steering adapter, show the weight update that it amounts to instead; that needs no data.
    """
    from actshift.files import check_writable

    if (updated is None) == (adapter is None):
        raise ActshiftError("Give --updated, a fine-tuned model or a LoRA, or --adapter, a steering adapter.")
    if adapter is not None:
        if data is not None or task is not None or figure is not None:
            raise ActshiftError("--adapter needs no --data and draws no --figure: the update follows from the weights.")
        from actshift.analysis.folding import weight_updates

        steered, _, _ = load_steered(model, [adapter], strength, trust_remote_code)
        show(weight_updates(steered), as_json, None)
        return
    assert updated is not None
    if figure is not None:
        check_writable(figure)
    source = base_of_twin(model, updated)
    rows = rows_for(source, data, task, data_dir, split, limit)
    base, twin, tokenizer = load_twins(source, updated, trust_remote_code)

    from actshift.analysis import equivalence as package
    from actshift.analysis.batches import token_batches

    batches = token_batches(rows, tokenizer, batch_size, max_length)

    ranks = sorted({1, rank})
    with progress_bar() as heard:
        report = package.equivalence(
            base, twin, batches, ranks, on_batch=lambda done: heard("Batches", done, len(batches))
        )
    show(report, as_json, figure)
