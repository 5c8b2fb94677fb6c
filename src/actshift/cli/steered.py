"""What the verbs that run a model share: its options, and loading it with its adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actshift.model_head import Head


BASE = "__base__"  # PEFT's name for no adapter

Model = Annotated[
    str | None,
    typer.Option("--model", help="A model's folder or Hugging Face id; by default the base that the adapter names."),
]
Adapter = Annotated[str | None, typer.Option("--adapter", help="An adapter's folder or Hugging Face id.")]
Strength = Annotated[float, typer.Option("--strength", help="How much of the shift to add: 1 as trained, 0 the base.")]
Half = Annotated[
    str, typer.Option("--half", help="Of a joint adapter: weights (its LoRA) alone, activations alone, or both.")
]
LongPrompts = Annotated[
    Literal["refuse", "truncate"],
    typer.Option("--long-prompts", help="Prompts beyond the model's context: refuse them, or read the end of each."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens to write at most.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0, help="0 is greedy; above it, sample.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with the model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


def load_steered(
    model: str | None,
    adapters: Sequence[str],
    strength: float,
    trust_remote_code: bool,
    half: str = "both",
    head: Head | None = None,
) -> tuple[Any, PreTrainedTokenizerBase, list[str]]:
    """Load a model with any number of adapters; return it, its tokenizer and the adapters' names in it.

    Adapters are actshift's, of one half or two, or stock LoRAs. The head is that of the adapters, else `head`, else the
    model's own. Raises ActshiftError where neither a model nor an
    adapter is given, one of them cannot be loaded, or it has no strength or halves that could be set.
    """
    from rich.console import Console

    with Console(stderr=True).status("Loading the libraries …") as status:
        from actshift.loading import load_model
        from actshift.tuner import set_halves, set_strength
        from actshift.tuner.loading import load_any_adapter

        source = model or base_of(adapters)
        status.update(f"Loading {source} …")
        try:
            wanted = head_to_load(source, adapters, trust_remote_code, head)
            loaded, tokenizer = load_model(source, trust_remote_code=trust_remote_code, head=wanted)
        except ActshiftError as error:
            if model is not None:
                raise
            raise ActshiftError(f"{error} The adapter names it as its base; --model takes another place.") from error
        names = [f"adapter{number}" for number in range(1, len(adapters) + 1)]  # a path is no module name
        for name, adapter in zip(names, adapters, strict=True):
            loaded = load_any_adapter(loaded, adapter, adapter_name=name)
        if adapters and strength != 1:
            set_strength(loaded, strength)
        if half != "both":
            set_halves(loaded, half)
    return loaded, tokenizer, names


@contextmanager
def acting(model: Any, name: str, half: str = "both") -> Iterator[None]:
    """Let one adapter act inside a `with` block, or one half of it; `BASE` is none, as it is for a model without."""
    from actshift.tuner import set_halves

    if name == BASE:
        with model.disable_adapter() if hasattr(model, "peft_config") else nullcontext():
            yield
        return
    model.set_adapter(name, inference_mode=True)
    if half != "both":
        set_halves(model, half)
    yield


def base_of(adapters: Sequence[str]) -> str:
    """Return the base model that the first adapter names; raise ActshiftError where there is none."""
    from actshift.tuner.loading import base_model_of

    if not adapters:
        raise ActshiftError("No model is given; add --model with a folder or Hugging Face id, or --adapter.")
    if base := base_model_of(adapters[0]):
        return base
    raise ActshiftError(f"The adapter {adapters[0]} does not name its base model; add --model.")


def head_to_load(
    source: str, adapters: Sequence[str], trust_remote_code: bool = False, wanted: Head | None = None
) -> Head:
    """Return the one head of all adapters, else the one that is wanted, else the model's own; an encoder may have none.

    Raises ActshiftError for adapters with different heads.
    """
    from actshift.loading import load_config
    from actshift.model_head import Head, labels_of, own_head
    from actshift.tuner.classifier_head import saved_head

    heads = [saved_head(adapter) for adapter in adapters]
    for adapter, head in zip(adapters, heads, strict=True):
        if head != heads[0]:
            raise ActshiftError(
                f"The adapters {adapters[0]} and {adapter} have different heads, {heads[0]} and {head}; load one."
            )
    if heads or wanted:
        return heads[0] if heads else wanted  # type: ignore[return-value]
    config = load_config(source, trust_remote_code)
    own = Head(own_head(config) or "FEATURE_EXTRACTION")
    return Head(own.task_type, labels_of(config)) if own.classifies else own


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
    from actshift.tuner.loading import LORA, adapter_type, base_model_of

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
    from actshift.tuner.loading import load_any_adapter

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
