"""`actshift vector`: a steering vector from two sets of texts, without training."""

from typing import Annotated

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered
from actshift.cli.output import check_outputs, echo, print_report, progress_bar, save_report_figure
from actshift.cli.rows import limit_length
from actshift.errors import ActshiftError
from actshift.files import atomic_folder, check_new_folder
from actshift.model_head import CAUSAL


def vector(
    positive: Annotated[str, Option(help="Rows to steer towards: a file or a dataset id.")],
    negative: Annotated[str, Option(help="Rows to steer away from, with the same columns.")],
    out: options.AdapterFolder,
    model: options.Model = None,
    layers: Annotated[
        list[str] | None,
        Option("--layers", "--layer", help="Block: an index or a slice, 4:8 (repeatable). Default: the middle block."),
    ] = None,
    method: Annotated[str, Option(help="Direction: mean (difference of means) or pca (of row differences).")] = "mean",
    token: Annotated[str, Option(help="Hidden state of a row: last (of the last token) or mean (of all).")] = "last",
    split: options.Split = None,
    columns: options.Columns = None,
    limit: Annotated[
        int | None, Option(min=2, max=options.LARGEST, help="Use only this many rows of each, from the first.")
    ] = None,
    batch_size: options.BatchSize = 8,
    max_length: options.MaxLength = 512,
    figure: options.Figure = None,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Compute a steering vector from positive and negative texts, without training.

    The vector is the direction from negative to positive hidden states after a block. It is saved as an adapter, which
    `actshift generate --adapter OUT --strength 1` uses.
    """
    from actshift.data import load_rows

    check_new_folder(out)
    check_outputs(figure=figure)
    if model is None:
        raise ActshiftError("No model is given. Add --model with a folder, a GGUF file or a Hugging Face id.")
    positive_rows, negative_rows = (load_rows(source, split, limit, renames=columns) for source in (positive, negative))
    loaded, tokenizer, _ = load_steered(model, [], 1.0, trust_remote_code, head=CAUSAL, revision=revision)

    from actshift.analysis import contrast as analysis
    from actshift.sites import find_blocks, resolve
    from actshift.training.configs import layer_indices

    chosen = layer_indices(layers, len(find_blocks(loaded))) if layers else None
    resolve(loaded, layers=chosen)  # reject a block that does not exist before the rows are processed
    how = (method, token, batch_size, limit_length(max_length, loaded, tokenizer))
    with progress_bar() as update:
        contrast = analysis.contrast(loaded, tokenizer, positive_rows, negative_rows, *how, on_progress=update)
    steered = contrast.attach(loaded, chosen)
    blocks = steered.peft_config["default"].layers
    card = analysis.card(contrast.report, blocks, positive, negative)
    save_report_figure(contrast.report, figure)
    with atomic_folder(out) as folder:
        steered.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print_report(contrast.report, as_json)
    if not as_json:
        echo(f"written   {out}, which steers after block {', '.join(map(str, blocks))}")
