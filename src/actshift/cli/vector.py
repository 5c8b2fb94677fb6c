"""`actshift vector`: a steering vector from two sets of texts, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actshift.cli.options import Split
from actshift.cli.steered import AsJson, BatchSize, MaxLength, Model, TrustRemoteCode, progress_bar, show
from actshift.errors import ActshiftError


def vector(
    positive: Annotated[str, typer.Option("--positive", help="Rows to steer towards: a file or a dataset's id.")],
    negative: Annotated[str, typer.Option("--negative", help="Rows to steer away from, of the same columns.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the adapter.")],
    model: Model = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers",
            "--layer",
            help="Blocks to steer: an index, or a slice as 4:8 (repeatable; the middle one if left out).",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="mean: the difference of means, or pca: of pairs, row by row.")
    ] = "mean",
    token: Annotated[
        str, typer.Option("--token", help="Where to look: the last token of a row, or the mean over its tokens.")
    ] = "last",
    split: Split = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Use only the first rows of each.")] = None,
    batch_size: BatchSize = 8,
    max_length: MaxLength = 512,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw it to this .png or .svg file.")] = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Find the direction from negative to positive texts after each block, and save it as a steering adapter.

    Nothing is trained. `actshift generate --adapter OUT --strength 1` steers by it.
    """
    from actshift.data import load_rows
    from actshift.files import check_new_folder, check_writable, write_whole

    check_new_folder(out)
    if figure is not None:
        check_writable(figure)
    if model is None:
        raise ActshiftError("No model is given; add --model with a folder or Hugging Face id.")
    ahead, behind = (load_rows(source, split, limit) for source in (positive, negative))

    from rich.console import Console

    with Console(stderr=True).status("Loading the libraries …") as status:
        from actshift.analysis import contrast as package
        from actshift.loading import load_model
        from actshift.sites import find_blocks, resolve
        from actshift.training.configs import layer_indices

        status.update(f"Loading {model} …")
        loaded, tokenizer = load_model(model, trust_remote_code=trust_remote_code)
    chosen = layer_indices(layers, len(find_blocks(loaded))) if layers else None
    resolve(loaded, layers=chosen)  # a block that there is not is told before the rows are read
    with progress_bar() as heard:
        found = package.contrast(loaded, tokenizer, ahead, behind, method, token, batch_size, max_length, heard=heard)
    steered = found.attach(loaded, chosen)
    steered.save_pretrained(str(out), save_embedding_layers=False)
    blocks = steered.peft_config["default"].layers
    write_whole(out / "README.md", package.card(found.report, blocks, positive, negative))
    show(found.report, as_json, figure)
    if not as_json:
        typer.echo(f"written   {out}, which steers after block {', '.join(map(str, blocks))}")
