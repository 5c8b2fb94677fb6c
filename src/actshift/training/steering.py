"""From settings to a SteeringConfig: the adapter's fields, and the layers that slices mean for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from actshift.errors import ActshiftError
from actshift.training.arguments import uses_bf16
from actshift.training.inputs import named
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from actshift.tuner import SteeringConfig

ADAPTER_SETTINGS = ("rank", "activation", "bias", "init")


def steering_config(settings: TrainSettings, blocks: int | None = None) -> SteeringConfig:
    """Return the SteeringConfig that `settings` describe for a model of `blocks` blocks.

    Without `blocks` the layers are left at "all": enough to check every name before a model is loaded.

    Raises:
        ActshiftError: an unknown adapter, activation, init or site, a bad rank or layer, or a setting that the
            adapter does not have.

    Example:
        >>> steering_config(TrainSettings(adapter="vector", layers=("-2:",)), blocks=6).layers
        [4, 5]
    """
    from actshift.adapters import ADAPTERS, adapter_from_dict
    from actshift.tuner import SteeringConfig

    kind = ADAPTERS.get(settings.adapter)
    taken = [item.name for item in fields(kind)] if kind else []
    for name in ADAPTER_SETTINGS:
        if kind and name not in taken and getattr(settings, name) != getattr(TrainSettings, name):
            raise ActshiftError(f"The adapter {settings.adapter} has no {name}; leave it out, or use low_rank.")
    values = {name: getattr(settings, name) for name in taken}
    if values.get("activation") == "none":
        values["activation"] = None
    adapter = adapter_from_dict({"kind": settings.adapter, **values})
    layers = layer_indices(settings.layers, blocks) if settings.layers and blocks else None
    return SteeringConfig(adapter=adapter, site=settings.site, layers=layers, task_type="CAUSAL_LM")


def steered_model(settings: TrainSettings) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the base model with a fresh, seeded adapter (a PeftModel), and its tokenizer.

    Raises ActshiftError where the model cannot be loaded, or the adapter does not fit it.
    """
    import torch

    from actshift.loading import load_model
    from actshift.sites import find_blocks
    from actshift.tuner import attach

    bf16 = uses_bf16(settings)
    model, tokenizer = load_model(
        named(settings, "model"), dtype="auto" if bf16 else "float32", trust_remote_code=settings.trust_remote_code
    )
    if bf16:
        cast(Any, model).to(torch.bfloat16)  # in place; on a CPU "auto" is float32
    torch.manual_seed(settings.seed)
    return attach(model, steering_config(settings, len(find_blocks(model)))), tokenizer


def layer_indices(layers: Sequence[int | str], count: int) -> list[int]:
    """Return the block indices that numbers and Python slices mean in a model of `count` blocks.

    Raises ActshiftError for a slice that is malformed, reaches out of the model or selects nothing; a single
    index is checked where it is resolved.

    >>> layer_indices([0, "-2:"], 6)
    [0, 4, 5]
    """
    return [index for layer in layers for index in _indices(str(layer), count)]


def _indices(layer: str, count: int) -> Sequence[int]:
    parts = layer.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        chosen = slice(*numbers) if len(numbers) > 1 else None
        indices = [int(layer)] if chosen is None else range(*chosen.indices(count))
    except (ValueError, TypeError):
        raise ActshiftError(
            f"Layers {layer!r} is neither a block's index such as -1 nor a Python slice such as 4:8."
        ) from None
    bounds = numbers[:2] if chosen else []
    if not indices or any(bound is not None and not -count <= bound <= count for bound in bounds):
        raise ActshiftError(f"Layers {layer!r} is out of range: the model has {count} blocks, 0 to {count - 1}.")
    return indices
