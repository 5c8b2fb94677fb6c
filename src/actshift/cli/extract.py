"""`actshift extract`: a fine-tuned model as an adapter of its base."""

from typing import Annotated

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_model_pair, resolve_pair_base
from actshift.cli.output import check_outputs, echo, print_report, progress_bar
from actshift.cli.rows import limit_length, rows_for
from actshift.errors import ActshiftError
from actshift.files import locked_folder


def extract(
    finetuned: Annotated[
        str, Option(help="Fine-tuned model, or a LoRA for it: a folder, a GGUF file or a Hugging Face id.")
    ],
    out: options.AdapterFolder,
    data: options.Data = None,
    columns: options.Columns = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    model: options.Model = None,
    split: options.Split = None,
    limit: options.Limit = 1024,
    rank: Annotated[int, Option(min=1, max=options.LARGEST, help="Rank of the adapter in every block.")] = 8,
    budget: Annotated[
        int | None, Option(min=1, max=options.LARGEST, help="Parameters to spend, instead of --rank.")
    ] = None,
    distill_steps: Annotated[
        int, Option(min=0, max=options.LARGEST, help="Training steps on the KL divergence after the closed form.")
    ] = 0,
    learning_rate: Annotated[float, Option(help="Learning rate of these steps.")] = 1e-3,
    linear: Annotated[bool, Option(help="Also fit full-rank linear maps, which bound every rank.")] = True,
    batch_size: options.BatchSize = 16,
    max_length: options.MaxLength = 256,
    resume: options.Resume = False,
    figure: options.Figure = None,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Convert a fine-tuned model into a small linear adapter of its base, in closed form.

    Any unlabelled text will do as data. The report shows how simple the shifts of the fine-tuned model are, and how far
    the adapter's next-token distribution is from the fine-tuned model's.
    """
    from actshift.analysis import extract as analysis

    analysis.check_folder(out, resume)
    check_outputs(figure=figure)
    base = resolve_pair_base(model, finetuned, revision)
    rows = rows_for(base, data, task, data_dir, split, limit, columns)
    plain, twin, tokenizer = load_model_pair(base, finetuned, trust_remote_code)

    from actshift.analysis.batches import token_batches

    batches = token_batches(rows, tokenizer, batch_size, limit_length(max_length, plain, tokenizer))
    fitting = (rank, budget, distill_steps, learning_rate, linear)
    try:
        busy = f"Another process extracts to {out}. Wait for it, or write to another folder."
        with locked_folder(out, busy), progress_bar() as update:
            extraction = analysis.extract(plain, twin, batches, *fitting, folder=out, resume=resume, on_progress=update)
    except KeyboardInterrupt:
        if not (out / analysis.UNFINISHED).is_file():
            raise
        message = f"Interrupted. Run the same command with --resume to continue from the layers in {out}."
        raise ActshiftError(message) from None
    print_report(extraction.report, as_json, figure)
    if not as_json:
        echo(f"written   {out}")
