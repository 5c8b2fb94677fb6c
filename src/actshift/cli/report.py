"""`actshift report`: one page of figures about where to steer, and what an update or an adapter amounts to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actshift.cli.options import Data, DataDir, Limit, Split, Task, rows_for
from actshift.cli.steered import (
    Adapter,
    AsJson,
    BatchSize,
    MaxLength,
    Model,
    TrustRemoteCode,
    base_of,
    base_of_twin,
    load_steered,
    load_twins,
    progress_bar,
)
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from torch import Tensor

MOST_BATCHES = 8
"""Fewer rows than eight batches are cut finer, so that gains have a spread over batches."""


def report(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
    data: Data = None,
    task: Task = None,
    data_dir: DataDir = None,
    model: Model = None,
    finetuned: Annotated[
        str | None, typer.Option("--finetuned", help="A fine-tuned version of the model, or a LoRA, to look into.")
    ] = None,
    adapter: Adapter = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="A folder for the figures as PNG and SVG; beside --out if left out."),
    ] = None,
    split: Split = None,
    limit: Limit = 128,
    rank: Annotated[int, typer.Option("--rank", min=1, help="The rank to look at.")] = 8,
    batch_size: BatchSize = 8,
    max_length: MaxLength = 256,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a page that shows where to steer a model, and with --finetuned or --adapter what those amount to.

    A joint adapter adds how its halves overlap. A LoRA is looked into as a fine-tuned model is. With an adapter that
    only steers, the gains are those of a further change. The page needs no network.
    """
    import json

    from rich.console import Console

    from actshift.errors import require

    require("matplotlib", "plot")
    folder = figures or out.with_name(f"{out.stem}-figures")
    _check_places(out, folder)
    rows = rows_for(_base(model, finetuned, adapter), data, task, data_dir, split, limit)
    base, twin, joint, tokenizer = _load(model, finetuned, adapter, trust_remote_code)

    from actshift.analysis.batches import token_batches
    from actshift.analysis.report import Report, look
    from actshift.compare.provenance import provenance

    batches = token_batches(rows, tokenizer, max(1, min(batch_size, len(rows) // MOST_BATCHES)), max_length)
    with progress_bar() as heard:
        findings = look(base, batches, rank, twin, joint, on_progress=heard)
    about = {
        "model": findings.locate.model,
        "fine-tuned": finetuned,
        "adapter": adapter,
        "data": _size(data or str(task), batches),
    }
    made = provenance(_typed(context))
    made["versions"] = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    found = Report(findings, {name: fact for name, fact in about.items() if fact}, made)
    found.write(out, folder)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for section in found.sections:
        console.print(f"{section.title}: {section.advice}", markup=False)
    console.print(f"written   {out}\nfigures   {folder}", markup=False)


def _check_places(out: Path, folder: Path) -> None:
    from actshift.files import check_writable

    check_writable(out)
    if folder.is_file():
        raise ActshiftError(f"{folder} is a file, and the figures need a folder; give another name to --figures.")
    check_writable(folder / "figure.png" if folder.is_dir() else folder)


def _load(
    model: str | None, finetuned: str | None, adapter: str | None, trust_remote_code: bool
) -> tuple[Any, Any, str | None, Any]:
    """Return the model to look at, its fine-tuned twin, the joint adapter to look at after, and the tokenizer."""
    from actshift.tuner import JointConfig, read_config
    from actshift.tuner.lora import LORA, adapter_type, base_model_of

    is_lora = adapter is not None and adapter_type(adapter) == LORA
    if is_lora and finetuned is not None:
        raise ActshiftError(
            f"{adapter} is a LoRA, which is looked into as a fine-tuned model is; leave out it or --finetuned."
        )
    joint = adapter if adapter and not is_lora and isinstance(read_config(adapter), JointConfig) else None
    if adapter and model is None:
        model = base_model_of(adapter)
    if updated := finetuned or (adapter if is_lora else None):
        if adapter and not is_lora and not joint:
            raise ActshiftError(
                f"{adapter} only steers, which says nothing about a fine-tuned model; leave out it or --finetuned."
            )
        base, twin, tokenizer = load_twins(base_of_twin(model, updated), updated, trust_remote_code)
        return base, twin, joint, tokenizer
    base, tokenizer, _ = load_steered(model, [adapter] if adapter and not joint else [], 1.0, trust_remote_code)
    return base, None, joint, tokenizer


def _base(model: str | None, finetuned: str | None, adapter: str | None) -> str:
    if model is None and adapter is not None:
        return base_of([adapter])
    return base_of_twin(model, finetuned) if finetuned else model or base_of([])


def _size(data: str, batches: Sequence[dict[str, Tensor]]) -> str:
    rows = sum(len(batch["input_ids"]) for batch in batches)
    return f"{data}, {rows:,} rows, {sum(int(batch['attention_mask'].sum()) for batch in batches):,} tokens"


def _typed(context: typer.Context) -> str:
    """Return the command line, as it was given."""
    words = ["actshift", "report"]
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[option.name or ""]
            words += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return shlex.join(words)
