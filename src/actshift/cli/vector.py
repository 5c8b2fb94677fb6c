"""`actshift vector`: a steering vector from two sets of texts, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered
from actshift.cli.output import (
    check_outputs,
    echo,
    print_facts,
    print_json,
    print_tables,
    progress_bar,
    save_report_figure,
)
from actshift.cli.prompts import read_prompts
from actshift.cli.rows import limit_length
from actshift.errors import ActshiftError
from actshift.files import atomic_folder, check_new_folder
from actshift.model_head import CAUSAL

if TYPE_CHECKING:
    from datasets import Dataset

MOST_PROMPTS = 32  # of the negative rows, to calibrate on


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
    shift: Annotated[
        Literal["add", "ablate", "gate"],
        Option(help="Use of the direction: add, ablate (remove it), or gate (add it where h already has it)."),
    ] = "add",
    calibrate: Annotated[
        float | None,
        Option(min=1e-6, help="Save the strength at which the worst 5 % of the tokens' KL reach this many nats."),
    ] = None,
    prompts: Annotated[
        Path | None, Option(help="Prompts for --calibrate: one per line, or .jsonl. Default: 32 negative rows.")
    ] = None,
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
    `actshift generate --adapter OUT` uses. --calibrate makes vectors of different blocks and methods comparable.
    """
    from actshift.data import load_rows

    if prompts is not None and calibrate is None:
        raise ActshiftError("--prompts are for --calibrate. Add it, such as --calibrate 1.")
    given = read_prompts(None, prompts) if prompts is not None else []
    if any(prompt.template for prompt in given):
        raise ActshiftError(f"{prompts} has tools or template options, which --calibrate does not render. Remove them.")
    check_new_folder(out)
    check_outputs(figure=figure)
    if model is None:
        raise ActshiftError("No model is given. Add --model with a folder, a GGUF file or a Hugging Face id.")
    positive_rows, negative_rows = (load_rows(source, split, limit, renames=columns) for source in (positive, negative))
    loaded, tokenizer, _ = load_steered(model, [], None, trust_remote_code, head=CAUSAL, revision=revision)

    from actshift.analysis import contrast as analysis
    from actshift.evaluation import calibrate as find_strength
    from actshift.sites import find_blocks, resolve
    from actshift.training.configs import layer_indices

    chosen = layer_indices(layers, len(find_blocks(loaded))) if layers else None
    resolve(loaded, layers=chosen)  # reject a block that does not exist before the rows are processed
    how = (method, token, batch_size, limit_length(max_length, loaded, tokenizer))
    with progress_bar() as update:
        contrast = analysis.contrast(loaded, tokenizer, positive_rows, negative_rows, *how, on_progress=update)
        steered = contrast.attach(loaded, chosen, shift=shift)
        calibration = None
        if calibrate is not None:
            texts = [prompt.content for prompt in given] or _prompts_of(negative_rows)
            shared: Any = {"batch_size": batch_size, "on_progress": update}
            calibration = find_strength(steered, texts, calibrate, tokenizer, **shared)
    config = steered.peft_config["default"]
    calibrated = str(calibration) if calibration else None
    card = analysis.card(contrast.report, config.layers, positive, negative, shift, config.strength, calibrated)
    save_report_figure(contrast.report, figure)
    with atomic_folder(out) as folder:
        steered.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").write_text(card, encoding="utf-8")
    if as_json:
        extra = {"calibration": calibration.to_dict()} if calibration else {}
        print_json({**contrast.report.to_dict(), **extra})
        return
    print_tables(contrast.report)
    print_facts({"calibrated": calibrated})
    echo(f"written   {out}, which steers after block {', '.join(map(str, config.layers))}")


def _prompts_of(rows: "Dataset") -> list[Any]:
    """Return the prompts of the first rows: their prompt, their messages without the last answer, or their text."""
    prompts: list[Any] = []
    for row in rows.select(range(min(len(rows), MOST_PROMPTS))):
        values: dict[str, Any] = dict(row)
        prompt: Any = values.get("prompt", values.get("messages", values.get("text")))
        is_answered = "prompt" not in values and isinstance(prompt, list) and prompt[-1]["role"] == "assistant"
        prompts.append(prompt[:-1] if is_answered else prompt)
    return prompts
