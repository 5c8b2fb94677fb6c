"""The two halves of a joint adapter: switch either off at run time, or save it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from actshift.errors import ActshiftError, did_you_mean
from actshift.files import check_new_folder
from actshift.tuner.joint.config import JointConfig
from actshift.tuner.layer import CONTAINER, SteeringLayer

Half = Literal["weights", "activations", "both"]


def set_halves(model: nn.Module, which: str, adapter_name: str | None = None) -> None:
    """Let only the `weights` of joint adapters act (LoRA), only the `activations` (steering), or `both`.

    The half that is off is left out of the computation, so the rest is bit for bit what it would be alone. It is a
    matter of run time: it is not saved, and activating an adapter (`set_adapter`) brings back both.

    Raises ActshiftError for another word, a model without a joint adapter, an unknown adapter.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> set_halves(model, "weights")
    """
    if which not in get_args(Half):
        raise ActshiftError(
            f"there is no half {which!r}{did_you_mean(which, get_args(Half))}; use {', '.join(get_args(Half))}."
        )
    halves = joint_layers(model)
    names = set.intersection(*({name for layer in half for name in _held(layer)} for half in halves.values()))
    if not names:
        raise ActshiftError(f"{type(model).__name__} carries no joint adapter; attach one with JointConfig first.")
    if adapter_name is not None and adapter_name not in names:
        raise ActshiftError(f"there is no joint adapter {adapter_name!r}; there are {', '.join(sorted(names))}.")
    everywhere = [layer for half in halves.values() for layer in half]
    acting = {name for layer in everywhere for name in layer.active_adapters} & names
    for name in acting if adapter_name is None else acting & {adapter_name}:
        for half, layers in halves.items():
            for layer in layers:
                _switch(layer, name, on=which in (half, "both"))


@contextmanager
def halves(model: nn.Module, which: str, adapter_name: str | None = None) -> Iterator[None]:
    """Let only one half of joint adapters act inside a `with` block, and what acted before it again after.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> with halves(model, "activations"):
    ...     pass
    """
    layers = [layer for half in joint_layers(model).values() for layer in half]
    before = [layer._active_adapter for layer in layers]
    set_halves(model, which, adapter_name)
    try:
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            layer._active_adapter = former


def save_half(model: PeftModel, which: str, folder: str | Path, adapter_name: str = "default") -> None:
    """Save one half of a joint adapter in a new `folder`, as an adapter of its own.

    "weights" is a stock LoRA, which PEFT loads and merges without actshift; "activations" a steering adapter.

    Raises ActshiftError for another word, an adapter that is not joint, a folder that is not new or empty.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> save_half(model, "weights", "lora")  # doctest: +SKIP
    """
    config: Any = model.peft_config.get(adapter_name)
    if not isinstance(config, JointConfig):
        raise ActshiftError(f"the adapter {adapter_name!r} is not a joint one, so it has no halves to save alone.")
    if which not in ("weights", "activations"):
        raise ActshiftError(f"one half is saved alone: weights or activations, got {which!r}.")
    check_new_folder(Path(folder))
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    kept = {name: value for name, value in state.items() if _half_of(name) in (which, "both")}
    tensors = {name: value.contiguous() for name, value in kept.items()}
    alone = config.activations_config() if which == "activations" else config.weights_config()
    alone.inference_mode = True
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(Path(folder, SAFETENSORS_WEIGHTS_NAME)), metadata={"format": "pt"})
    alone.save_pretrained(str(folder))  # last: without it no library takes the folder for an adapter


def joint_layers(model: nn.Module) -> dict[str, list[BaseTunerLayer]]:
    """Return the layers of either half of a model: LoRA's as `weights`, steering layers as `activations`."""
    modules = list(model.modules())
    return {
        "weights": [module for module in modules if isinstance(module, LoraLayer)],
        "activations": [module for module in modules if isinstance(module, SteeringLayer)],
    }


def _half_of(tensor: str) -> Half:
    """Which half a saved tensor is of, by its name; a classifier's head is of both."""
    if CONTAINER in tensor:
        return "activations"
    return "weights" if ".lora_" in tensor else "both"


def _held(layer: BaseTunerLayer) -> set[str]:
    return {name for kind in layer.adapter_layer_names for name in getattr(layer, kind)}


def _switch(layer: BaseTunerLayer, name: str, on: bool) -> None:
    others = [active for active in layer.active_adapters if active != name]
    layer._active_adapter = [*others, name] if on and name in _held(layer) else others
