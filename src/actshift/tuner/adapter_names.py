"""Check the names of adapters, and that a model has no adapter of the same name."""

from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from torch import nn

from actshift.errors import ActshiftError, show
from actshift.tuner.checkpoint import Shape
from actshift.tuner.config import PEFT_TYPE
from actshift.tuner.layer import BASE_ROW


def check_new_name(model: nn.Module, adapter_name: Any) -> None:
    """Raise ActshiftError unless a name is text, and no adapter of a PeftModel has it yet."""
    if not isinstance(adapter_name, str):
        raise ActshiftError(f"An adapter_name must be text such as 'default', got {show(adapter_name)}.")
    if isinstance(model, PeftModel) and adapter_name in model.peft_config:
        fix = "choose another name, or remove it first with model.delete_adapter"
        raise ActshiftError(f"The model already has an adapter {adapter_name!r}; {fix}.")


def check_not_adapted(model: nn.Module, adapter_name: str) -> None:
    """Raise ActshiftError if a model that PEFT will wrap is a PeftModel, or has an adapter of this name."""
    config = getattr(model, "peft_config", {})
    if isinstance(model, PeftModel) or adapter_name in config:
        types = {str(getattr(other.peft_type, "value", other.peft_type)) for other in config.values()}
        if types <= {PEFT_TYPE}:
            fix = (
                "to add another, use model.add_adapter(name, config) with a new name, or remove it with model.unload()"
            )
        else:
            fix = "merge it first with model.merge_and_unload(), or train both together with JointConfig"
        names = ", ".join(f"{name!r}" for name in config)
        raise ActshiftError(f"The model already has the adapter {names} ({', '.join(sorted(types))}); {fix}.")


def check_name(adapter_name: Any, shapes: Mapping[str, Shape]) -> None:
    """Raise ActshiftError unless an adapter may have this name, which becomes the name of a module and of a folder.

    `shapes` are the adapter's tensors by name. PEFT drops tensors whose name contains another adapter's name.
    """
    if not isinstance(adapter_name, str) or not adapter_name.isprintable() or not 0 < len(adapter_name) <= 100:
        raise ActshiftError(f"An adapter cannot be called {show(adapter_name)}; use 1 to 100 printable characters.")
    if set("./\\:") & set(adapter_name) or hasattr(nn.ModuleDict(), adapter_name) or adapter_name == BASE_ROW:
        problem = "torch, PEFT or the file system cannot use that name"
        raise ActshiftError(f"An adapter cannot be called {adapter_name!r}, because {problem}; choose a simple word.")
    if adapter_name in {part for name in shapes for part in name.split(".")}:
        clash = "names of the model's tensors contain it; choose another name"
        raise ActshiftError(f"An adapter cannot be called {adapter_name!r}, because {clash}.")
