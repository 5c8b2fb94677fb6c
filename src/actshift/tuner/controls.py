"""Run-time controls of an adapted model: strength, halves of a joint adapter, and parameter groups."""

import itertools
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from actshift.errors import ActshiftError, check_choice, is_number
from actshift.files import atomic_folder
from actshift.sites.blocks import unwrap
from actshift.tuner.config import JointConfig
from actshift.tuner.layer import CONTAINER, SteeringLayer, steering_layers
from actshift.tuner.run_state import override, overrides, replay_strengths

HALVES = ("weights", "activations", "both")


def set_strength(model: nn.Module, strength: float, adapter_name: str | None = None) -> None:
    """Set the run-time strength s of h + s·Δ(h): 1 is as trained, and 0 is bit-identical to the base model.

    This strength is not saved. An adapter is loaded with the strength of its config, which is 1 unless
    `actshift.calibrate` has set it. `model` is a PeftModel, or a transformers model with native adapters.
    `adapter_name` None is all adapters. It applies in all threads, except inside their `with strength(...)`.

    Raises:
        ActshiftError: for a strength that is not a finite number, a model without steering, or an unknown adapter.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2))
    >>> set_strength(model, 0.5)
    """
    for layer, names in _steered(model, strength, adapter_name):
        layer.strength.update(dict.fromkeys(names, float(strength)))


@contextmanager
def strength(model: nn.Module, strength: float, adapter_name: str | None = None) -> Generator[None]:
    """Set the run-time strength inside a `with` block, in this thread or async task only.

    It takes the arguments of `set_strength` and raises its errors. A thread that is started inside the block has the
    strength of `set_strength`, unless it runs in a copy of the context: `Thread(target=copy_context().run, args=...)`
    with `contextvars.copy_context`. A full graph of torch.compile (`fullgraph=True`) needs `set_strength`.

    >>> import torch
    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2))
    >>> with strength(model, 0.5):
    ...     logits = model(torch.tensor([[5, 6, 7]])).logits
    """
    own = overrides()
    strengths: dict[Any, Any] = dict(own.strengths) if own else {}
    for layer, names in _steered(model, strength, adapter_name):
        strengths[layer] = {**strengths.get(layer, layer.strength), **dict.fromkeys(names, float(strength))}
    with ExitStack() as stack:
        if model.training:  # for checkpointed blocks
            stack.callback(unwrap(model).register_forward_hook(replay_strengths).remove)
        stack.enter_context(override(strengths=strengths))
        yield


def _steered(model: nn.Module, strength: float, adapter_name: str | None) -> list[tuple[SteeringLayer, set[str]]]:
    """Return the layers to set this strength at, with the names of their adapters; raise for wrong arguments."""
    if not is_number(strength):
        raise ActshiftError(f"strength must be a finite number such as 0.5, got {strength!r}.")
    layers = steering_layers(model).values()
    names = _select(model, {name for layer in layers for name in layer.strength}, adapter_name, "steering")
    return [(layer, names & layer.strength.keys()) for layer in layers]


def set_halves(model: nn.Module, which: str, adapter_name: str | None = None) -> None:
    """Activate only the `weights` half of joint adapters (LoRA), only the `activations` half (steering), or `both`.

    An inactive half is not computed, so the result is bit-identical to the other half alone. The choice is not saved,
    and activating an adapter (`set_adapter`) activates both halves again. `adapter_name` None is all joint adapters.
    Like `set_adapter` and `disable_adapter` of PEFT, this changes the model for all threads.

    Raises:
        ActshiftError: for another word, a model without a joint adapter, or an unknown adapter.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> set_halves(model, "weights")
    """
    check_choice("half", which, HALVES)
    halves = joint_layers(model)
    joint = set.intersection(*({name for layer in half for name in _adapter_names(layer)} for half in halves.values()))
    active = {name for half in halves.values() for layer in half for name in layer.active_adapters}
    for name in active & _select(model, joint, adapter_name, "joint"):
        for half, layers in halves.items():
            for layer in layers:
                others = [other for other in layer.active_adapters if other != name]
                activate = which in (half, "both") and name in _adapter_names(layer)
                layer._active_adapter = [*others, name] if activate else others  # pyright: ignore[reportPrivateUsage]  the setter freezes


@contextmanager
def halves(model: nn.Module, which: str, adapter_name: str | None = None) -> Generator[None]:
    """Activate one half of joint adapters inside a `with` block, for all threads, and restore the active ones after it.

    It takes the arguments of `set_halves` and raises its errors.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> with halves(model, "activations"):
    ...     pass
    """
    with ExitStack() as stack:
        for layer in itertools.chain(*joint_layers(model).values()):
            stack.callback(setattr, layer, "_active_adapter", layer._active_adapter)  # pyright: ignore[reportPrivateUsage]  the setter freezes
        set_halves(model, which, adapter_name)
        yield


def save_half(model: PeftModel, which: str, folder: str | Path, adapter_name: str = "default") -> None:
    """Save one half of a joint adapter as a separate adapter, in a folder that is new or empty.

    "weights" is a plain LoRA, which PEFT loads and merges without actshift. "activations" is a steering adapter.

    Raises:
        ActshiftError: for another word, an adapter that is not joint, or a folder that is not empty.

    >>> from actshift import JointConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], JointConfig(r=2))
    >>> save_half(model, "weights", "lora")  # doctest: +SKIP
    """
    config: Any = model.peft_config.get(adapter_name)
    if not isinstance(config, JointConfig):
        raise ActshiftError(f"The adapter {adapter_name!r} is not a joint one, so it has no halves to save.")
    check_choice("half", which, HALVES[:2])
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    steers = which == "activations"
    names = [name for name in state if ".lora_" not in name or (CONTAINER in name) == steers]  # both get a head
    tensors = {name: state[name].contiguous() for name in names}
    half_config = config.activations_config() if steers else config.weights_config()
    half_config.inference_mode = True
    with atomic_folder(folder) as new:
        save_file(tensors, str(new / SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
        half_config.save_pretrained(str(new))


def joint_layers(model: nn.Module) -> dict[str, list[BaseTunerLayer]]:
    """Return the layers of each half of a model: LoRA layers as "weights", steering layers as "activations"."""
    classes: dict[str, type] = {"weights": LoraLayer, "activations": SteeringLayer}
    modules: list[Any] = list(model.modules())
    return {half: [module for module in modules if isinstance(module, kind)] for half, kind in classes.items()}


def parameter_groups(
    model: nn.Module, learning_rate: float, lora_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Return the trainable parameters of `model` as groups for a torch optimiser, one for each half.

    The group "activations" has the shifts at `learning_rate`. The group "weights" has LoRA and all other parameters at
    `lora_learning_rate`; None is the same rate. Empty groups are left out.

    Raises:
        ActshiftError: if no parameter requires gradients.

    >>> import torch
    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=1))
    >>> optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, lora_learning_rate=1e-4))
    >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
    [('activations', 0.001)]
    """
    groups: dict[str, list[nn.Parameter]] = {"activations": [], "weights": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["activations" if CONTAINER in name else "weights"].append(parameter)
    if not any(groups.values()):
        raise ActshiftError(f"No parameter of {type(model).__name__} requires gradients; attach an adapter first.")
    rates = {"activations": learning_rate, "weights": lora_learning_rate or learning_rate}
    return [{"params": group, "lr": rates[name], "name": name} for name, group in groups.items() if group]


def _select(model: nn.Module, known: set[str], adapter_name: str | None, kind: str) -> set[str]:
    """Return the known adapter of this name; None is all of them."""
    if not known:
        raise ActshiftError(f"{type(model).__name__} carries no {kind} adapter; attach or load one first.")
    if adapter_name is not None and adapter_name not in known:
        raise ActshiftError(f"There is no {kind} adapter {adapter_name!r}; there are {', '.join(sorted(known))}.")
    return known if adapter_name is None else {adapter_name}


def _adapter_names(layer: BaseTunerLayer) -> set[str]:
    return {name for container in layer.adapter_layer_names for name in getattr(layer, container)}
