"""Attach a fresh adapter to a model, or a saved one, in one call each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError
from actshift.tuner.checkpoint import PEFT_PREFIX, read_checkpoint, read_json
from actshift.tuner.classifier_head import with_head
from actshift.tuner.config import SteeringConfig
from actshift.tuner.peft_patches import PEFT_TYPE


def attach(model: nn.Module, config: SteeringConfig, adapter_name: str = "default") -> PeftModel:
    """Return the model with a fresh adapter, a further one if it is a PeftModel already; the base is frozen.

    The head of a classifier (task_type SEQ_CLS or TOKEN_CLS) is trained too. Raises ActshiftError where the config does
    not fit the model, which is then untouched.

    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=1))
    >>> {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"down", "up"}
    True
    """
    with_head(model, config)
    if isinstance(model, PeftModel):
        model.add_adapter(adapter_name, config)
        return model
    return cast(PeftModel, get_peft_model(cast(PreTrainedModel, model), config, adapter_name=adapter_name))


def load_adapter(model: nn.Module, source: str, adapter_name: str = "default", trainable: bool = False) -> PeftModel:
    """Return the model with the adapter saved in folder or hub repository `source`, and that adapter active.

    Raises ActshiftError where there is no steering adapter, it is damaged, or it does not fit the model, which
    is then untouched.

    >>> model = load_adapter(model, "run")  # doctest: +SKIP
    """
    read_config(source)
    if isinstance(model, PeftModel):
        model.load_adapter(source, adapter_name, is_trainable=trainable)
        model.set_adapter(adapter_name, inference_mode=not trainable)
        return model
    return PeftModel.from_pretrained(
        cast(PreTrainedModel, model), source, adapter_name=adapter_name, is_trainable=trainable
    )


def read_config(source: str, **hub: Any) -> SteeringConfig:
    """Return the config of the adapter in folder or hub repository `source`, with its tensors checked to be whole.

    Raises ActshiftError where there is no adapter, it is of another kind, or one of its files is damaged.
    """
    kind = read_json(source, **hub)["peft_type"]
    if kind != PEFT_TYPE:
        raise ActshiftError(f"{source} holds an adapter of type {kind!r}, not a steering adapter of actshift.")
    config = SteeringConfig.from_pretrained(source, **hub)
    assert isinstance(config, SteeringConfig)
    return config


def remember_checkpoint(config: Any, source: str, subfolder: str | None, **hub: Any) -> Any:
    """Note on a config read from `source` which tensors lie beside it, for the check before injection."""
    if isinstance(config, SteeringConfig):
        config.stored = read_checkpoint(source, subfolder, **hub)
    return config


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
