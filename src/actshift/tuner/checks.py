"""Whether an adapter fits a model: all that is asked before the model is touched."""

from __future__ import annotations

import torch
from torch import nn

from actshift.errors import ActshiftError
from actshift.sites import Host
from actshift.tuner.checkpoint import Shape
from actshift.tuner.config import SteeringConfig
from actshift.tuner.layer import CONTAINER


def check_adapter(
    model: nn.Module, adapter_name: str, config: SteeringConfig, hosts: list[Host], num_blocks: int
) -> None:
    """Raise ActshiftError where an adapter does not fit the model, before anything is attached.

    Compared are width and depth, if the config was read from a file; rank and width of every host; the adapter's
    name and the names of the model's tensors; and the stored tensors, by name and shape.
    """
    wanted, found = (config.num_blocks, config.d_model), (num_blocks, hosts[0].width)
    if config.stored is not None and None not in wanted and wanted != found:
        raise ActshiftError(
            f"this adapter is for a model with {wanted[0]} blocks of width {wanted[1]}, and "
            f"{type(model).__name__} has {found[0]} of width {found[1]}; load it on its base model"
            f"{f' {config.base_model_name_or_path!r}' if config.base_model_name_or_path else ''}."
        )
    for host in hosts:
        config.intervention.check_shape(host.width)
    shapes = tensor_shapes(hosts, config)
    taken = {part for name in shapes for part in name.split(".")}
    if adapter_name in taken:
        raise ActshiftError(
            f"an adapter cannot be called {adapter_name!r}, which is part of the names of the model's tensors; "
            "choose another name."
        )
    if config.stored is not None:
        own = [name for name, _ in model.named_parameters()]
        config.stored.check_fits(shapes, [*own, *_saved_modules(model, config)])


def tensor_shapes(hosts: list[Host], config: SteeringConfig) -> dict[str, Shape]:
    """Return names (as saved, without the adapter's) and shapes of the tensors that a config makes at `hosts`."""
    with torch.device("meta"):
        return {
            f"{host.name}{CONTAINER}{name}": tuple(tensor.shape)
            for host in hosts
            for name, tensor in config.intervention.build(host.width).state_dict().items()
        }


def _saved_modules(model: nn.Module, config: SteeringConfig) -> list[str]:
    wanted = tuple(config.modules_to_save or ())
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] in wanted]
