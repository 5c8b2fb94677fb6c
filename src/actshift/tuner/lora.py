"""PEFT's own LoRA, unchanged, as the baseline: its folder loads and merges without actshift."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from actshift.errors import ActshiftError, first_line
from actshift.model_head import TaskType
from actshift.tuner.checkpoint import read_json
from actshift.tuner.classifier_head import check_head, with_head
from actshift.tuner.loading import load_adapter

LORA = "LORA"


def lora_model(
    model: nn.Module,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    task_type: TaskType = "CAUSAL_LM",
) -> PeftModel:
    """Return the model with a fresh LoRA: W ← W + (α/r)·B A on the linear maps called `targets`, None for all.

    "All" are those of the blocks: the output embedding is none of them. Raises ActshiftError where the model has no
    map of such a name.

    Source: Hu et al., arXiv 2106.09685; the implementation is PEFT's.

    >>> from actshift.demo import load_base
    >>> model = lora_model(load_base()[0], r=2, targets=["q_proj"])
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    3072
    """
    config = LoraConfig(
        r=r,
        lora_alpha=cast(int, alpha),  # any number will do, whatever the annotation says
        lora_dropout=dropout,
        target_modules=list(targets) if targets else "all-linear",
        task_type=task_type,
    )
    with_head(model, config)
    try:
        return cast(PeftModel, get_peft_model(cast(PreTrainedModel, model), config))
    except ValueError as error:
        raise ActshiftError(f"LoRA does not fit {type(model).__name__}: {first_line(error)}") from error


def load_any_adapter(model: nn.Module, source: str, adapter_name: str = "default") -> PeftModel:
    """Return the model with the adapter in folder or hub repository `source`, ours or a LoRA, ready for inference.

    Raises ActshiftError where there is none, it is of a third kind or damaged, it does not fit the model, or the
    model carries adapters of the other kind already.
    """
    is_lora = adapter_type(source) == LORA
    if isinstance(model, PeftModel) and is_lora != (model.peft_type == LORA):
        raise ActshiftError(
            f"{source} is a {'LoRA' if is_lora else 'steering adapter'}, which PEFT cannot load beside a "
            f"{'steering adapter' if is_lora else 'LoRA'}; load one of them."
        )
    if not is_lora:
        return load_adapter(model, source, adapter_name)
    check_head(model, read_json(source).get("task_type"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")  # it would go on untrained
            if isinstance(model, PeftModel):
                model.load_adapter(source, adapter_name)
                model.set_adapter(adapter_name, inference_mode=True)
                return model
            return PeftModel.from_pretrained(cast(PreTrainedModel, model), source, adapter_name=adapter_name)
    except (ValueError, RuntimeError, UserWarning) as error:
        raise ActshiftError(f"The LoRA {source} does not fit {type(model).__name__}: {first_line(error)}") from error


def adapter_type(source: str) -> str:
    """Return PEFT's name for the kind of adapter in folder or hub repository `source`."""
    return str(read_json(source)["peft_type"])


def base_model_of(source: str) -> str | None:
    """Return the base model that the adapter in folder or hub repository `source` names, if it names one."""
    values: dict[str, Any] = read_json(source)
    return values.get("base_model_name_or_path")
