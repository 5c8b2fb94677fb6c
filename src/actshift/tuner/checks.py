"""Whether an adapter fits a model: all that is asked before the model is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    """Raise ActshiftError where an adapter does not fit the model, before anything is attached.

    Compared are the head, width and depth, if the config was read from a file; the adapter's name and the names of the
    model's tensors; and the stored tensors, by name and shape, with the `shapes` that the adapter makes in this model.
    """
    if config.stored is not None:
        check_head(model, config.task_type)
    wanted, found = (config.num_blocks, config.d_model), (num_blocks, d_model)
    if config.stored is not None and None not in wanted and wanted != found:
        raise ActshiftError(
            f"this adapter is for a model with {wanted[0]} blocks of width {wanted[1]}, and "
            f"{type(model).__name__} has {found[0]} of width {found[1]}; load it on its base model"
            f"{f' {config.base_model_name_or_path!r}' if config.base_model_name_or_path else ''}."
        )
    taken = {part for name in shapes for part in name.split(".")}
    if adapter_name in taken:
        raise ActshiftError(
            f"an adapter cannot be called {adapter_name!r}, which is part of the names of the model's tensors; "
            "choose another name."
        )
    if config.stored is not None:
        own = [name for name, _ in model.named_parameters()]
        experts = config.stored.shapes if config.target_parameters else ()  # whose LoRA `lora_shapes` does not foretell
        config.stored.check_fits(shapes, [*own, *_saved_modules(model, config), *experts])


def tensor_shapes(targets: list[Target]) -> dict[str, Shape]:
    """Return names (as saved, without the adapter's) and shapes of the tensors that an adapter makes at `targets`."""
    with torch.device("meta"):
        return {
            f"{target.host.name}.{child_of(target.host)}{CONTAINER}{name}": tuple(tensor.shape)
            for target in targets
            for name, tensor in build_shift(target).state_dict().items()
        }


def lora_shapes(model: nn.Module, config: JointConfig, adapts: Callable[[str], bool]) -> dict[str, Shape]:
    """Return names and shapes of the tensors that the LoRA half makes, in the modules whose name it `adapts`.

    Only linear maps are told here; what else LoRA adapts (embeddings, experts) is compared when it is loaded.
    """
    shapes: dict[str, Shape] = {}
    for name, module in model.named_modules():
        if not adapts(name) or CONTAINER in name or ".base_layer" in name:
            continue
        ranks = config.rank_pattern or {}
        rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
        layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        sizes: tuple[int, ...] | None = None
        if isinstance(layer, nn.Linear):
            sizes = (layer.in_features, layer.out_features)
        elif isinstance(layer, Conv1D):
            sizes = (layer.nx, layer.nf)
        if sizes is not None:
            shapes[f"{name}.lora_A.weight"], shapes[f"{name}.lora_B.weight"] = (rank, sizes[0]), (sizes[1], rank)
    return shapes


def _saved_modules(model: nn.Module, config: SteeringConfig) -> list[str]:
    wanted = tuple(config.modules_to_save or ())
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] in wanted]
