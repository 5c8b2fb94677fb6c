"""Load a model with its adapters, or a base model together with a fine-tuned version of it."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from actshift.cli.output import PlainConsole
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actshift.model_head import Head

BASE = "__base__"  # PEFT's name for "no adapter"
MAIN = "main"  # the hub's name of the default revision


class Base(NamedTuple):
    """A base model: a folder, a GGUF file or a Hugging Face id. `revision` None is the main one on the hub."""

    source: str
    revision: str | None = None


def load_steered(
    model: str | None,
    adapters: Sequence[str],
    strength: float | None,
    trust_remote_code: bool,
    half: str = "both",
    head: Head | None = None,
    revision: str | None = None,
) -> tuple[Any, PreTrainedTokenizerBase, list[str]]:
    """Load a model with any number of steering, joint or LoRA adapters.

    Args:
        model: Folder or Hugging Face id; None for the base that the first adapter names.
        strength: Strength of all adapters; None for the one that each was saved with.
        half: Part of a joint adapter to use: "both", "weights" or "activations".
        head: Head to load if the adapters name none; None for the model's own.
        revision: Revision of the model on the hub; None for the one that the adapters name.

    Returns:
        The model in evaluation mode, its tokenizer, and the adapters' names in the model, in the order of `adapters`.

    Raises:
        ActshiftError: Model and adapter are both missing or cannot be loaded, or there is no strength or half to set.
    """
    with PlainConsole(stderr=True).status("Loading the libraries …") as status:
        from actshift.loading import load_model
        from actshift.tuner import set_halves, set_strength, steering_layers
        from actshift.tuner.loading import load_any_adapter

        base = resolve_base(model, adapters, revision)
        status.update(Text(f"Loading {base.source} …"))
        try:
            head = head_to_load(base, adapters, trust_remote_code, head)
            how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "head": head}
            loaded, tokenizer = load_model(base.source, **how, revision=base.revision)
        except ActshiftError as error:
            if model is not None:
                raise
            raise ActshiftError(f"{error} The adapter names it as its base. Use --model to give another.") from error
        names = [f"adapter{number}" for number in range(1, len(adapters) + 1)]  # paths are not valid module names
        for name, adapter in zip(names, adapters, strict=True):
            loaded = load_any_adapter(loaded, adapter, adapter_name=name)
        if adapters and strength is not None and (strength != 1 or steering_layers(loaded)):  # a LoRA has only 1
            set_strength(loaded, strength)
        if half != "both":
            set_halves(loaded, half)
    return loaded, tokenizer, names


@contextmanager
def active_adapter(model: Any, name: str, half: str = "both") -> Generator[None, None, None]:
    """Activate one adapter, or one half of a joint one, inside a `with` block; `BASE` deactivates all."""
    from actshift.tuner import set_halves

    if name == BASE:
        with model.disable_adapter() if hasattr(model, "peft_config") else nullcontext():
            yield
        return
    model.set_adapter(name, inference_mode=True)
    if half != "both":
        set_halves(model, half)
    yield


def resolve_base(model: str | None, adapters: Sequence[str] = (), revision: str | None = None) -> Base:
    """Return `model`, or else the base model that the first adapter names.

    Without `revision`, a model on the hub has the revision that the first adapter names for it. Warn about adapters
    that name another one.
    """
    from actshift.tuner.loading import base_model_of

    named = [base_model_of(adapter) for adapter in adapters]
    source = model if model is not None else (named[0][0] if named else None)
    if source is None:
        if not adapters:
            raise ActshiftError(
                "No model is given. Add --model with a folder, a GGUF file or a Hugging Face id, or --adapter."
            )
        raise ActshiftError(f"The adapter {adapters[0]} does not name its base model. Add --model.")
    if Path(source).exists():
        return Base(source, revision)
    is_chosen = revision is not None
    if named and named[0][0] == source and not is_chosen:
        revision = named[0][1]
    for adapter, (base, other) in zip(adapters, named, strict=True):
        if base == source and (other or MAIN) != (revision or MAIN) and not (is_chosen and other is None):
            problem = f"The adapter {adapter} is for the revision {other or MAIN} of {source}"
            warnings.warn(f"{problem}, but the revision {revision or MAIN} is used.", stacklevel=1)
    return Base(source, revision)


def head_to_load(base: Base, adapters: Sequence[str], trusted: bool = False, requested: Head | None = None) -> Head:
    """Return the head that all adapters share, else the requested one, else the model's own."""
    from actshift.loading import load_config
    from actshift.model_head import Head, head_of_config, labels_of
    from actshift.tuner.classifier_head import saved_head

    first, *others = [saved_head(adapter) for adapter in adapters] or [requested]
    for adapter, head in zip(adapters[1:], others, strict=True):
        if head != first:
            raise ActshiftError(f"{adapters[0]} and {adapter} have different heads, {first} and {head}. Load only one.")
    if first:
        return first
    config = load_config(base.source, trusted, base.revision)
    own = Head(head_of_config(config) or "FEATURE_EXTRACTION")
    return Head(own.task_type, labels_of(config)) if own.classifies else own


def load_model_pair(model: Base, updated: str, trust_remote_code: bool) -> tuple[Any, Any, PreTrainedTokenizerBase]:
    """Return a base model, the model that a fine-tuning or a merged LoRA made of it, and their tokenizer."""
    with PlainConsole(stderr=True).status("Loading both models …"):
        from actshift.analysis.extract import check_same_tokenizer
        from actshift.loading import load_model
        from actshift.tuner.loading import load_any_adapter

        loras = [updated] if is_adapter(updated) else []
        second = model if loras else Base(updated)
        head = head_to_load(second, loras, trust_remote_code)
        how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "head": head}
        base, tokenizer = load_model(model.source, **how, revision=model.revision)
        twin, twin_tokenizer = load_model(second.source, **how, revision=second.revision)
        check_same_tokenizer(tokenizer, twin_tokenizer)
        if loras:
            adapted: Any = load_any_adapter(twin, updated)
            twin = adapted.merge_and_unload().eval()
    return base, twin, tokenizer


def resolve_pair_base(model: str | None, updated: str, revision: str | None = None) -> Base:
    """Return `model`, or else the base model that the LoRA `updated` names; refuse adapters of other types."""
    from actshift.tuner.loading import LORA, adapter_type

    if is_adapter(updated):
        if (peft_type := adapter_type(updated)) != LORA:
            problem = f"{updated} is an adapter of type {peft_type!r}, which changes no weight"
            raise ActshiftError(f"{problem}. Give a fine-tuned model or a LoRA.")
        return resolve_base(model, [updated], revision)
    if model is None:
        raise ActshiftError("No base model is given. Add --model with a folder, a GGUF file or a Hugging Face id.")
    return Base(model, revision)


def is_adapter(source: str) -> bool:
    """Return whether a folder or hub repository contains an adapter."""
    from actshift.tuner.checkpoint import CONFIG_NAME, adapter_file

    try:
        adapter_file(source, CONFIG_NAME)
    except ActshiftError:
        return False
    return True
