"""Begin a fresh adapter from one that is saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError
from actshift.tuner.checkpoint import PEFT_PREFIX
from actshift.tuner.loading import read_config


def start_from(model: nn.Module, source: str, adapter_name: str = "default") -> tuple[str, ...]:
    """Copy the tensors saved in folder or hub repository `source` into an adapter of `model`; return their names.

    The adapter may steer more blocks than the saved one, which begin as they were; it must be of the same kind, and
    its positions may be others. To go on with a saved adapter as it is, `load_adapter(..., trainable=True)` is enough.

    Raises ActshiftError where `model` has no such adapter, `source` is none, or the two do not fit, before anything
    is copied.

    >>> start_from(attach(model, SteeringConfig(adapter=Vector())), "french")  # doctest: +SKIP
    """
    config = getattr(model, "peft_config", {}).get(adapter_name)
    if not isinstance(model, PeftModel) or config is None:
        raise ActshiftError(
            f"{type(model).__name__} has no adapter {adapter_name!r} to begin from {source}; attach one."
        )
    saved = read_config(source)
    assert saved.stored is not None  # read_config compared it with the file's header
    _check_adapters(source, saved.all_interventions, getattr(config, "all_interventions", ()))
    own = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    for name, shape in saved.stored.shapes.items():
        mine = own.get(PEFT_PREFIX + name)
        if mine is None or tuple(mine.shape) != shape:
            here = "none of that name" if mine is None else f"one of shape {list(mine.shape)}"
            raise ActshiftError(
                f"{source} cannot begin this adapter: it holds {name} of shape {list(shape)}, and the adapter has "
                f"{here}; steer at least the same blocks at the same site, of the model that it was made for."
            )
    set_peft_model_state_dict(model, {**own, **load_file(saved.stored.path)}, adapter_name=adapter_name)
    return tuple(saved.stored.shapes)


def _check_adapters(source: str, saved: Any, own: Any) -> None:
    known = [_without_init(one.adapter) for one in own]
    for one in saved:
        if _without_init(one.adapter) not in known:
            raise ActshiftError(
                f"{source} cannot begin this adapter: it is {one.adapter!r}, and the adapter is "
                f"{', '.join(map(repr, dict.fromkeys(item.adapter for item in own))) or 'no steering adapter'}; "
                "give both the same adapter."
            )


def _without_init(adapter: Adapter) -> Adapter:
    """How the weights began says nothing about what they mean."""
    return replace(adapter, init="default") if isinstance(adapter, LowRank) else adapter
