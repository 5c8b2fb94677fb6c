"""`actshift extract`: a fine-tuned checkpoint becomes an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actshift.cli.options import Data, DataDir, Limit, Split, Task, rows_for
from actshift.cli.steered import (
    AsJson,
    BatchSize,
    MaxLength,
    Model,
    TrustRemoteCode,
    base_of_twin,
    load_twins,
    progress_bar,
    show,
)
from actshift.errors import ActshiftError


def extract(
    finetuned: Annotated[
        str, typer.Option("--finetuned", help="The fine-tuned model, or a LoRA for it: a folder or a Hugging Face id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the adapter.")],
    data: Data = None,
    task: Task = None,
    data_dir: DataDir = None,
    model: Model = None,
    split: Split = None,
    limit: Limit = 1024,
    rank: Annotated[int, typer.Option("--rank", min=1, help="The rank after every block.")] = 8,
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=1, help="Parameters to spend where the shift is largest, in place of --rank."),
    ] = None,
    distill_steps: Annotated[
        int, typer.Option("--distill-steps", min=0, help="Steps of training on KL after the closed form.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The rate of the distillation.")] = 1e-3,
    linear: Annotated[
        bool, typer.Option(help="Try linear maps of full rank too, to see what any linear map could.")
    ] = True,
    batch_size: BatchSize = 16,
    max_length: MaxLength = 256,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished extraction in --out.")] = False,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw it to this .png or .svg file.")] = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Turn a fine-tuned model into a small linear adapter of its base, in closed form, from any unlabelled text.

    It says how simple the fine-tuned model's shifts are, and how far the adapter's next tokens are from its.
    """
    from actshift.files import check_new_folder, check_writable

    if not resume:
        check_new_folder(out)
    if figure is not None:
        check_writable(figure)
    source = base_of_twin(model, finetuned)
    rows = rows_for(source, data, task, data_dir, split, limit)
    base, twin, tokenizer = load_twins(source, finetuned, trust_remote_code)

    from actshift.analysis import extract as package
    from actshift.analysis.batches import token_batches

    batches = token_batches(rows, tokenizer, batch_size, max_length)

    try:
        with progress_bar() as heard:
            found = package.extract(
                base,
                twin,
                batches,
                rank,
                budget,
                distill_steps,
                learning_rate,
                linear,
                folder=out,
                resume=resume,
                heard=heard,
            )
    except KeyboardInterrupt:
        raise ActshiftError(f"Interrupted; the same command with --resume goes on from the layers in {out}.") from None
    show(found.report, as_json, figure)
    if not as_json:
        typer.echo(f"written   {out}")
