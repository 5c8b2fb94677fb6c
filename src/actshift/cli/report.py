"""`actshift report`: one HTML page about the best places to steer, and about an update or an adapter."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from actshift.cli import options
from actshift.cli.models import Base, load_model_pair, load_steered, resolve_base, resolve_pair_base
from actshift.cli.output import check_outputs, echo, print_json, progress_bar
from actshift.cli.rows import limit_batch_size, limit_length, rows_for
from actshift.errors import ActshiftError, require


def report(
    context: typer.Context,
    out: Annotated[Path, Option(help="HTML file to write.")],
    data: options.Data = None,
    columns: options.Columns = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    model: options.Model = None,
    finetuned: Annotated[str | None, Option(help="Fine-tuned version of the model to analyse, or a LoRA.")] = None,
    adapter: options.Adapter = None,
    figures: Annotated[Path | None, Option(help="Folder for PNG and SVG figures. Default: next to --out.")] = None,
    split: options.Split = None,
    limit: options.Limit = 128,
    rank: Annotated[int, Option(min=1, max=options.LARGEST, help="Rank of the shifts to measure.")] = 8,
    batch_size: options.BatchSize = 8,
    max_length: options.MaxLength = 256,
    as_json: options.AsJson = False,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write an HTML page about the best places to steer a model, and about an adapter's effect.

    With --finetuned, or a LoRA as --adapter, the page also shows the weight update as activation shifts. With a joint
    adapter it shows how its halves overlap. With an adapter that only steers, gains are measured for a further change.
    The page can be read offline.
    """
    require("matplotlib", "plot")
    check_outputs(out)
    folder = figures or out.with_name(f"{out.stem}-figures")
    if folder.is_file():
        raise ActshiftError(f"{folder} is a file, and the figures need a folder. Give another name to --figures.")
    check_outputs(folder / "figure.png" if folder.is_dir() else folder)
    chosen, updated, steering, joint = _resolve_subject(model, finetuned, adapter, revision)
    rows = rows_for(chosen, data, task, data_dir, split, limit, columns)
    twin = None
    if updated:
        base, twin, tokenizer = load_model_pair(chosen, updated, trust_remote_code)
    else:
        base, tokenizer, _ = load_steered(chosen.source, steering, None, trust_remote_code, revision=chosen.revision)

    from actshift.analysis.batches import token_batches
    from actshift.analysis.report import Report, run_analyses

    size, length = limit_batch_size(batch_size, len(rows)), limit_length(max_length, base, tokenizer)
    batches = token_batches(rows, tokenizer, size, length)
    with progress_bar() as update:
        findings = run_analyses(base, batches, rank, twin, joint, on_progress=update)
    row_count = sum(len(batch["input_ids"]) for batch in batches)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    source = f"{data or task}, {row_count:,} rows, {tokens:,} tokens"
    about = {"model": findings.locate.model, "fine-tuned": finetuned, "adapter": adapter, "data": source}
    page = Report(findings, {name: fact for name, fact in about.items() if fact}, _provenance(context))
    page.write(out, folder)
    if as_json:
        print_json(page.to_dict())
        return
    for section in page.sections:
        echo(f"{section.title}: {section.advice}")
    echo(f"written   {out}\nfigures   {folder}")


def _resolve_subject(
    model: str | None, finetuned: str | None, adapter: str | None, revision: str | None
) -> tuple[Base, str | None, list[str], str | None]:
    """Return the base, its fine-tuned version or LoRA, the adapters to measure with, and the joint adapter."""
    from actshift.tuner import JointConfig, read_config
    from actshift.tuner.loading import LORA, adapter_type

    is_lora = adapter is not None and adapter_type(adapter) == LORA
    is_joint = adapter is not None and not is_lora and isinstance(read_config(adapter), JointConfig)
    if adapter and finetuned and not is_joint:
        lora = "is a LoRA, which is analysed as a fine-tuned model"
        reason = lora if is_lora else "only steers, so it cannot be compared with a fine-tuned model"
        raise ActshiftError(f"{adapter} {reason}. Leave out --adapter or --finetuned.")
    updated = finetuned or (adapter if is_lora else None)
    base = resolve_base(model, [adapter], revision) if adapter else None
    if updated:
        base = resolve_pair_base(base.source if base else model, updated, base.revision if base else revision)
    base = base or resolve_base(model, [], revision)
    steering = [adapter] if adapter and not is_lora and not is_joint else []
    return base, updated, steering, adapter if is_joint else None


def _provenance(context: typer.Context) -> dict[str, Any]:
    """Return the command line as the user typed it, the date, the machine and the versions of libraries."""
    from actshift.compare.provenance import provenance

    words = ["actshift", "report"]
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[option.name or ""]
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for item in values for word in (option.opts[0], *([] if item is True else [str(item)]))]
    made = provenance(shlex.join(words))
    return {**made, "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items())}
