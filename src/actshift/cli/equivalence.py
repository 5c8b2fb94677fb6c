"""`actshift equivalence`: a weight update as activation shifts, or a linear adapter as a weight update."""

from functools import partial
from typing import Annotated

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_model_pair, load_steered, resolve_pair_base
from actshift.cli.output import check_outputs, print_report, progress_bar
from actshift.cli.rows import limit_length, rows_for
from actshift.errors import ActshiftError


def equivalence(
    model: options.Model = None,
    updated: Annotated[
        str | None, Option(help="Fine-tuned model or LoRA: a folder, a GGUF file or a Hugging Face id.")
    ] = None,
    adapter: options.Adapter = None,
    data: options.Data = None,
    columns: options.Columns = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    split: options.Split = None,
    limit: options.Limit = 64,
    rank: Annotated[
        int, Option(min=1, max=options.LARGEST, help="Rank of the shifts that post-MLP and post-block may use.")
    ] = 8,
    strength: options.Strength = None,
    batch_size: options.BatchSize = 8,
    max_length: options.MaxLength = 256,
    figure: options.Figure = None,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Express a weight update as activation shifts, or a linear adapter as an update.

    With --updated, show the shift that the update causes in each layer, and how much of it steering at each site could
    reproduce. With --adapter, show the weight update that a linear steering adapter is equivalent to; this needs no
    data.
    """
    if adapter is not None and updated is None:
        if data is not None or task is not None or figure is not None:
            raise ActshiftError("--adapter takes no --data, --task or --figure: its weights alone give the update.")
        from actshift.analysis.folding import weight_updates

        steered, _, _ = load_steered(model, [adapter], strength, trust_remote_code, revision=revision)
        print_report(weight_updates(steered), as_json)
        return
    if updated is None or adapter is not None:
        raise ActshiftError("Give either --updated, a fine-tuned model or a LoRA, or --adapter, a steering adapter.")
    check_outputs(figure=figure)
    base = resolve_pair_base(model, updated, revision)
    rows = rows_for(base, data, task, data_dir, split, limit, columns)
    plain, twin, tokenizer = load_model_pair(base, updated, trust_remote_code)

    from actshift.analysis import equivalence as analysis
    from actshift.analysis.batches import token_batches

    batches = token_batches(rows, tokenizer, batch_size, limit_length(max_length, plain, tokenizer))
    with progress_bar() as update:
        on_batch = partial(update, "Batches", total=len(batches))
        report = analysis.equivalence(plain, twin, batches, sorted({1, rank}), on_batch=on_batch)
    print_report(report, as_json, figure)
