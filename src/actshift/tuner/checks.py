"""Checks that an adapter fits a model, made before the model is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.errors import ActshiftError
from actshift.tuner.checkpoint import Shape
from actshift.tuner.classifier_head import check_head
from actshift.tuner.config import SteeringConfig
from actshift.tuner.intervention import Target
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.layer import CONTAINER, build_shift, child_of


def check_adapter(
    model: nn.Module,
    adapter_name: str,
    config: SteeringConfig,
    shapes: Mapping[str, Shape],
    num_blocks: int,
    d_model: int,
) -> None:
    """Check that an adapter fits a model.

    `shapes` are the shapes of the adapter's tensors in this model, by name. If the config was read from a file, the
    model's head, width and depth and the stored tensors must match.

    Raises:
        ActshiftError: if the adapter does not fit.
    """
    if config.stored is not None:
        check_head(model, config.task_type)
        trained_on = (config.num_blocks, config.d_model)
        if None not in trained_on and trained_on != (num_blocks, d_model):
            base = f" {config.base_model_name_or_path!r}" if config.base_model_name_or_path else ""
            raise ActshiftError(
                f"This adapter is for a model with {config.num_blocks} blocks of width {config.d_model}, and "
                f"{type(model).__name__} has {num_blocks} of width {d_model}; load it on its base model{base}."
            )
    if adapter_name in {part for name in shapes for part in name.split(".")}:
        raise ActshiftError(
            f"An adapter cannot be called {adapter_name!r}, because names of the model's tensors contain it; "
            "choose another name."
        )
    if config.stored is not None:
        own = [name for name, _ in model.named_parameters()]
        saved = tuple(config.modules_to_save or ())
        modules = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in saved]
        experts = config.stored.shapes if config.target_parameters else ()  # `lora_shapes` does not predict these
        config.stored.check_fits(shapes, [*own, *modules, *experts])


def tensor_shapes(targets: list[Target]) -> dict[str, Shape]:
    """Return shapes of the tensors that an adapter makes at its hosts, by the name they are saved under."""
    with torch.device("meta"):
        return {
            f"{target.host.name}.{child_of(target.host)}{CONTAINER}{name}": tuple(tensor.shape)
            for target in targets
            for name, tensor in build_shift(target).state_dict().items()
        }


def lora_shapes(model: nn.Module, config: JointConfig, adapts: Callable[[str], bool]) -> dict[str, Shape]:
    """Return shapes of the tensors that the LoRA half makes, by name, in the modules for whose name `adapts` is True.

    Only linear maps are included. LoRA on embeddings and experts is checked while it is loaded.
    """
    shapes: dict[str, Shape] = {}
    for name, module in model.named_modules():
        if not adapts(name) or CONTAINER in name or ".base_layer" in name:
            continue
        ranks = cast(dict[str, int], config.rank_pattern or {})
        rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
        layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if isinstance(layer, nn.Linear):
            d_in, d_out = layer.in_features, layer.out_features
        elif isinstance(layer, Conv1D):
            d_in, d_out = layer.nx, layer.nf
        else:
            continue
        shapes[f"{name}.lora_A.weight"], shapes[f"{name}.lora_B.weight"] = (rank, d_in), (d_out, rank)
    return shapes
