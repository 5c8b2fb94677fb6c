"""What the verbs that compare a base with its fine-tuned twin share: loading both, and text for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from actshift.cli.steered import head_to_load
from actshift.errors import ActshiftError

BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")]
MaxLength = Annotated[int, typer.Option("--max-length", min=2, help="Longest row in tokens.")]


def load_twins(model: str, updated: str, trust_remote_code: bool) -> tuple[Any, Any, Any]:
    """Return the base, the updated model and the tokenizer of both; `updated` is a model, or a LoRA, merged here.

    Raises ActshiftError where one cannot be loaded, or the two have other tokenizers.
    """
    from rich.console import Console

    with Console(stderr=True).status("Loading both models …"):
        from actshift.analysis.extract import check_same_tokenizer
        from actshift.loading import load_model

        if is_adapter(updated):
            return _with_lora(model, updated, trust_remote_code)
        head = head_to_load(updated, [], trust_remote_code)
        base, tokenizer = load_model(model, trust_remote_code=trust_remote_code, head=head)
        twin, other = load_model(updated, trust_remote_code=trust_remote_code, head=head)
        check_same_tokenizer(tokenizer, other)
    return base, twin, tokenizer


def is_adapter(source: str) -> bool:
    """Whether a folder or hub repository holds an adapter and not a model."""
    from actshift.tuner.checkpoint import CONFIG_NAME, fetch

    try:
        fetch(source, CONFIG_NAME)
    except ActshiftError:
        return False
    return True


def base_of_twin(model: str | None, updated: str) -> str:
    """Return the base that was given, or that a LoRA names.

    Raises ActshiftError where neither is known, or `updated` is an adapter of another kind.
    """
    from actshift.tuner.lora import LORA, adapter_type, base_model_of

    if is_adapter(updated):
        if (kind := adapter_type(updated)) != LORA:
            raise ActshiftError(
                f"{updated} is an adapter of type {kind!r}, which changes no weight; give a fine-tuned model or a LoRA."
            )
        model = model or base_model_of(updated)
        if model is None:
            raise ActshiftError(f"The LoRA {updated} does not name its base model; add --model.")
    if model is None:
        raise ActshiftError("No base model is given; add --model with a folder or Hugging Face id.")
    return model


def _with_lora(model: str, source: str, trust_remote_code: bool) -> tuple[Any, Any, Any]:
    from actshift.loading import load_model
    from actshift.tuner.lora import load_any_adapter

    head = head_to_load(model, [source], trust_remote_code)
    base, tokenizer = load_model(model, trust_remote_code=trust_remote_code, head=head)
    twin: Any = load_any_adapter(load_model(model, trust_remote_code=trust_remote_code, head=head)[0], source)
    return base, twin.merge_and_unload().eval(), tokenizer


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each phase of a measurement, on a terminal; what it gives is told phase, steps done and steps."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def heard(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done)

        yield heard


def show(report: Any, as_json: bool, figure: Any) -> None:
    """Print a report as tables or JSON, and draw it to a file."""
    import json

    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        Console(highlight=False).print(report)
    if figure is not None:
        report.figure().savefig(figure)
