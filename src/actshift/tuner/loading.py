"""Attach a fresh adapter to a model, or a saved one, in one call each."""

from __future__ import annotations

from typing import Any, cast

from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from actshift.errors import ActshiftError
from actshift.tuner.checkpoint import read_checkpoint, read_json
from actshift.tuner.config import SteeringConfig
from actshift.tuner.heads import with_head
from actshift.tuner.register import PEFT_TYPE


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
