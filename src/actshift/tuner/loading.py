"""Attach fresh adapters and load saved ones, for steering, LoRA or both."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from actshift.adapters import Adapter, LowRank
from actshift.errors import ActshiftError, first_line
from actshift.model_head import TaskType
from actshift.sites.blocks import unwrap
from actshift.tuner.adapter_names import check_new_name
from actshift.tuner.checkpoint import PEFT_PREFIX, read_adapter_json, read_checkpoint
from actshift.tuner.classifier_head import check_head, train_whole_head
from actshift.tuner.config import LORA_FIELDS, PEFT_FIELDS, PEFT_TYPE, SteeringConfig
from actshift.tuner.controls import set_strength
from actshift.tuner.fields import check_field_values
from actshift.tuner.intervention import Intervention
from actshift.tuner.patterns import check_patterns
from actshift.tuner.stored_tensors import WRAPPERS, AnyModule, check_stored, without_wrappers

LORA = "LORA"  # PEFT's name
UNSAFE_LORA_FIELDS = ("layer_replication", "megatron_config", "kasa_config", "arrow_config")


def attach(model: nn.Module, config: SteeringConfig, adapter_name: str = "default") -> PeftModel:
    """Return the model with a fresh adapter, and freeze the base model.

    A PeftModel gets one more adapter. The head of a classifier (task_type SEQ_CLS or TOKEN_CLS) is trained too.

    Raises:
        ActshiftError: if the config does not fit the model, which then stays unchanged.

    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=1))
    >>> {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"down", "up"}
    True
    """
    check_new_name(model, adapter_name)
    train_whole_head(model, config)
    revision = getattr(model, "hub_revision", None)
    if isinstance(model, PeftModel):
        config.revision = config.revision or revision
        model.add_adapter(adapter_name, config)
        return model
    return cast(PeftModel, get_peft_model(cast(PreTrainedModel, model), config, adapter_name, revision=revision))


def lora_model(
    model: nn.Module,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    task_type: TaskType = "CAUSAL_LM",
) -> PeftModel:
    """Return the model with a fresh LoRA of PEFT, the baseline: W ← W + (α/r)·B A.

    `targets` are names of linear maps; None is all in the blocks, which excludes the output embedding. The saved folder
    loads and merges without actshift.

    Raises:
        ActshiftError: if the model has no linear map of these names.

    Source: Hu et al., arXiv 2106.09685; the implementation is PEFT's.

    >>> from actshift.demo import load_base
    >>> model = lora_model(load_base()[0], r=2, targets=["q_proj"])
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    3072
    """
    modules, scale = list(targets) if targets else "all-linear", cast(int, alpha)  # PEFT accepts any number
    config = LoraConfig(r=r, lora_alpha=scale, lora_dropout=dropout, target_modules=modules, task_type=task_type)
    train_whole_head(model, config)
    try:
        revision = getattr(model, "hub_revision", None)
        return cast(PeftModel, get_peft_model(cast(PreTrainedModel, model), config, revision=revision))
    except ValueError as error:
        raise ActshiftError(f"LoRA does not fit {type(model).__name__}: {first_line(error)}") from error


def load_adapter(model: nn.Module, source: str, adapter_name: str = "default", trainable: bool = False) -> PeftModel:
    """Return the model with the steering or joint adapter saved in folder or hub repository `source`, and activate it.

    A PeftModel gets one more adapter. The adapter is frozen unless it is `trainable`.

    Raises:
        ActshiftError: if `source` holds no steering adapter, or it is damaged or does not fit the model, which then
            stays unchanged.

    >>> model = load_adapter(model, "run")  # doctest: +SKIP
    """
    check_new_name(model, adapter_name)
    read_config(source)
    return _load_with_peft(model, source, adapter_name, trainable)


def load_any_adapter(model: nn.Module, source: str, adapter_name: str = "default") -> PeftModel:
    """Return the model with the steering, joint or LoRA adapter in folder or hub repository `source`, active, frozen.

    Raises:
        ActshiftError: if `source` holds no such adapter, it is damaged or does not fit the model, or the model has
            adapters of the other type.
    """
    is_lora = adapter_type(source) == LORA
    if isinstance(model, PeftModel) and is_lora != (model.peft_type == LORA):
        this, other = ("LoRA", "steering adapter") if is_lora else ("steering adapter", "LoRA")
        raise ActshiftError(f"{source} is a {this}, which PEFT cannot load beside a {other}; load one of them.")
    if not is_lora:
        return load_adapter(model, source, adapter_name)
    check_new_name(model, adapter_name)
    check_lora(model, source)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")  # else PEFT leaves them untrained
            return _load_with_peft(model, source, adapter_name, trainable=False)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, UserWarning, ValueError) as error:
        if isinstance(model, PeftModel) and adapter_name in model.peft_config:
            model.delete_adapter(adapter_name)
        elif not isinstance(model, PeftModel):
            _remove_wrappers(model)
        raise ActshiftError(f"The LoRA {source} does not fit {type(model).__name__}: {first_line(error)}") from error


def check_lora(model: nn.Module, source: str) -> None:
    """Check that the LoRA in folder or hub repository `source` is safe to load: PEFT would trust its files.

    Raises:
        ActshiftError: for a field of the config that is invalid, takes too long to match or changes the base model, or
            for a tensor that does not belong to the LoRA.
    """
    config = {name: value for name, value in read_adapter_json(source).items() if value not in (None, "")}
    check_head(model, config.get("task_type"))
    check_field_values(config, {*PEFT_FIELDS, *LORA_FIELDS} - {"peft_type"})
    if unsafe := [name for name in UNSAFE_LORA_FIELDS if config.get(name)]:
        problem = f"{source} sets {unsafe[0]}, which changes the base model or runs code"
        raise ActshiftError(f"{problem}. Merge such an adapter with PEFT, and use the merged model.")
    bare, stored = unwrap(model), read_checkpoint(source)
    ranks = [config.get("r", 8), *config.get("rank_pattern", {}).values()]
    largest = max((shape[0] for name, shape in stored.shapes.items() if "lora_" in name and shape), default=0)
    if max(ranks) > max(largest, 256):
        raise ActshiftError(f"{source} names a rank of {max(ranks):,}, and its tensors have at most {largest:,} rows.")
    check_patterns(config, names=(name for name, _ in bare.named_modules()))
    check_stored(bare, stored, {}, config.get("modules_to_save"), AnyModule())


def _remove_wrappers(model: nn.Module) -> None:
    """Restore a model to which PEFT has attached an adapter that it then could not load."""
    modules = [(module, *child) for module in model.modules() for child in module.named_children()]
    for parent, name, module in modules:
        if (original := without_wrappers(module)) is not module and not isinstance(parent, WRAPPERS):
            setattr(parent, name, original)
    vars(model).pop("peft_config", None)


def _load_with_peft(model: nn.Module, source: str, adapter_name: str, trainable: bool) -> PeftModel:
    if isinstance(model, PeftModel):
        model.load_adapter(source, adapter_name, is_trainable=trainable)
        model.set_adapter(adapter_name, inference_mode=not trainable)
        return model
    base = cast(PreTrainedModel, model)
    return PeftModel.from_pretrained(base, source, adapter_name=adapter_name, is_trainable=trainable)


def read_config(source: str, **hub: Any) -> SteeringConfig:
    """Return the config of the steering adapter in folder or hub repository `source`.

    The header of its tensor file is read too, so a truncated file is an error. `hub` are keyword arguments of
    `huggingface_hub.hf_hub_download`, such as `revision`.

    Raises:
        ActshiftError: if `source` holds no steering adapter, or one of its files is damaged.
    """
    if (peft_type := read_adapter_json(source, **hub)["peft_type"]) != PEFT_TYPE:
        raise ActshiftError(f"{source} holds an adapter of type {peft_type!r}, not a steering adapter of actshift.")
    return cast(SteeringConfig, SteeringConfig.from_pretrained(source, **hub))


def adapter_type(source: str) -> str:
    """Return PEFT's name for the type of the adapter in folder or hub repository `source`."""
    return str(read_adapter_json(source)["peft_type"])


def base_model_of(source: str) -> tuple[str | None, str | None]:
    """Return the base model that the adapter in folder or hub repository `source` names, and its revision, or None.

    Raises:
        ActshiftError: if `source` is not an adapter, or one of the two is not text.
    """
    config = read_adapter_json(source)
    check_field_values(config, names := ("base_model_name_or_path", "revision"))
    base, revision = (config.get(name) or None for name in names)
    return base, revision


def start_from(model: nn.Module, source: str, adapter_name: str = "default") -> tuple[str, ...]:
    """Copy the adapter saved in folder or hub repository `source` into an adapter of `model`, as its starting point.

    The adapter may steer more blocks than the saved one; these keep their weights. It must have the same kind of shift,
    and its positions may differ. Its strength is copied too. To continue a saved adapter unchanged, use
    `load_adapter(..., trainable=True)`.
    Returns the names of the copied tensors.

    Raises:
        ActshiftError: if `model` has no such adapter, `source` is not an adapter, or the two do not fit. Nothing is
            copied then.

    >>> start_from(attach(model, SteeringConfig(adapter=Vector())), "french")  # doctest: +SKIP
    """
    config = getattr(model, "peft_config", {}).get(adapter_name)
    if not isinstance(model, PeftModel) or config is None:
        lacking = f"{type(model).__name__} has no adapter {adapter_name!r} to start from {source}"
        raise ActshiftError(f"{lacking}; attach one first.")
    saved = read_config(source)
    assert saved.stored is not None  # set by read_config
    interventions: Sequence[Intervention] = getattr(config, "all_interventions", ())
    known = [_without_init(intervention.adapter) for intervention in interventions]
    for adapter in (intervention.adapter for intervention in saved.all_interventions):
        if _without_init(adapter) not in known:
            here = ", ".join(dict.fromkeys(repr(intervention.adapter) for intervention in interventions))
            differ = f"the saved one is {adapter!r}, and this one is {here or 'no steering adapter'}"
            raise ActshiftError(f"This adapter cannot start from {source}: {differ}; use the same adapter for both.")
    own = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    for name, shape in saved.stored.shapes.items():
        tensor = own.get(PEFT_PREFIX + name)
        if tensor is None or tuple(tensor.shape) != shape:
            here = "none of that name" if tensor is None else f"one of shape {list(tensor.shape)}"
            differ = f"the file holds {name} of shape {list(shape)}, and the adapter has {here}"
            fix = "steer at least the same blocks, at the same site, of the same base model"
            raise ActshiftError(f"This adapter cannot start from {source}: {differ}; {fix}.")
    set_peft_model_state_dict(model, own | load_file(saved.stored.path), adapter_name=adapter_name)
    config.strength = saved.strength
    set_strength(model, saved.strength, adapter_name)
    return tuple(saved.stored.shapes)


def _without_init(adapter: Adapter) -> Adapter:
    """Return the adapter with the default init, because the init does not change the meaning of trained weights."""
    return replace(adapter, init="default") if isinstance(adapter, LowRank) else adapter
