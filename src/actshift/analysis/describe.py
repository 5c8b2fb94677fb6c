"""Describe a saved adapter or a model from its files, without loading the model's weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from actshift.adapters import LowRank
from actshift.errors import ActshiftError
from actshift.gguf import find_gguf
from actshift.loading import load_config, short_errors
from actshift.sites import SITES, find_blocks, resolve
from actshift.tuner import JointConfig, read_config
from actshift.tuner.checkpoint import CONFIG_NAME, PEFT_PREFIX, adapter_file
from actshift.tuner.layer import CHILD_AT_INPUT, CONTAINER

RANK = 8  # the rank at which the cost of a site is stated


def describe(source: str, revision: str | None = None) -> AdapterDescription | ModelDescription:
    """Describe the adapter or the model in a folder, a GGUF file or a hub repository, at a `revision` of the latter.

    Raises:
        ActshiftError: The source is neither an adapter nor a model, or one of its files is damaged.

    >>> from actshift.demo import BASE_DIR
    >>> describe(str(BASE_DIR)).model_type
    'llama'
    """
    folder = Path(source)
    if find_gguf(source) is not None:
        return describe_model(source, revision)
    if folder.is_dir() and not any((folder / name).is_file() for name in (CONFIG_NAME, "config.json")):
        raise ActshiftError(f"The folder {source} is no adapter and no model: it has no {CONFIG_NAME} or config.json.")
    try:
        adapter_file(source, CONFIG_NAME, revision=revision)
    except ActshiftError:
        return describe_model(source, revision)
    return describe_adapter(source, revision)


@dataclass(frozen=True)
class SiteOption:
    """A site of a model: its hosts in forward order, and the cost of a rank-8 adapter at all of them.

    `share` is the cost over the model's parameters. `problem` is the reason why the model lacks the site.
    """

    site: str
    hosts: tuple[str, ...]
    parameters: int
    share: float
    problem: str | None = None


@dataclass(frozen=True)
class ModelDescription:
    """A model: its blocks, its parameters, and its sites. `file_bytes` is None without local files."""

    source: str
    architecture: str
    model_type: str
    blocks: int
    block: str
    d_model: int
    parameters: int
    file_bytes: int | None
    sites: tuple[SiteOption, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON values."""
        return {"kind": "model", **asdict(self)}


def describe_model(source: str, revision: str | None = None) -> ModelDescription:
    """Describe the model in a folder, a GGUF file or a hub repository from its config and the headers of its weights.

    Raises:
        ActshiftError: The model does not exist, a file is damaged, or its blocks cannot be identified.

    >>> from actshift.demo import BASE_DIR
    >>> describe_model(str(BASE_DIR)).blocks
    6
    """
    model, gguf = _skeleton(source, revision), find_gguf(source)
    files = [gguf] if gguf else list(Path(source).glob("*.safetensors"))
    for file in () if gguf else sorted(files):
        with short_errors(source), safe_open(file, framework="pt"):
            pass
    parameters, blocks = model.num_parameters(), find_blocks(model)
    return ModelDescription(
        source=str(source),
        architecture=type(model).__name__,
        model_type=model.config.model_type,
        blocks=len(blocks),
        block=type(blocks[0][1]).__name__,
        d_model=resolve(model)[0].width,
        parameters=parameters,
        file_bytes=sum(file.stat().st_size for file in files) or None,
        sites=tuple(_site_option(model, site, parameters) for site in SITES),
    )


def _skeleton(source: str, revision: str | None = None) -> PreTrainedModel:
    """Build the model on the meta device, without memory for its weights."""
    config = load_config(source, revision=revision)
    model_class = getattr(transformers, (config.architectures or [""])[0], None)
    with short_errors(source), torch.device("meta"):
        return model_class(config) if model_class is not None else AutoModel.from_config(config)


def _site_option(model: nn.Module, site: str, parameters: int) -> SiteOption:
    try:
        hosts = resolve(model, site)
    except ActshiftError as error:
        return SiteOption(site, (), 0, 0.0, str(error))
    cost = sum(LowRank(rank=RANK).parameter_count(host.width) for host in hosts)
    return SiteOption(site, tuple(host.name for host in hosts), cost, cost / parameters)


@dataclass(frozen=True)
class SiteDescription:
    """One steered module: shapes and Frobenius norms of its tensors; `norms["product"]` is ‖W_up W_down‖_F."""

    module: str
    shapes: dict[str, tuple[int, ...]]
    norms: dict[str, float]
    parameters: int


@dataclass(frozen=True)
class AdapterDescription:
    """A saved adapter: its config and its tensors.

    `weights` describes the LoRA half of a joint adapter. `share` is the adapter's parameters over the base model's, or
    None if the base's config is not on this machine. `other_parameters` do not steer: LoRA, `modules_to_save`.
    """

    source: str
    base_model: str | None
    site: str
    adapter: str
    positions: str
    layers: list[int] | None
    weights: str | None
    dtype: str
    parameters: int
    other_parameters: int
    share: float | None
    file_bytes: int
    sites: tuple[SiteDescription, ...]
    base_revision: str | None = None
    strength: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON values."""
        return {"kind": "adapter", **asdict(self)}


def describe_adapter(source: str, revision: str | None = None) -> AdapterDescription:
    """Describe the adapter in a folder or hub repository from its config and its tensors.

    Raises:
        ActshiftError: It is not a steering adapter, a file is damaged, or a value is not finite.

    >>> from tempfile import mkdtemp
    >>> from actshift import SteeringConfig, Vector, attach
    >>> from actshift.demo import load_base
    >>> attach(load_base()[0], SteeringConfig(adapter=Vector())).save_pretrained(folder := mkdtemp())
    >>> describe_adapter(folder).site
    'post_block'
    """
    config = read_config(source, revision=revision)
    assert config.stored is not None  # read_config has compared it with the header of the file
    path, interventions = config.stored.path, config.all_interventions
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ActshiftError(f"{path} holds values that are not finite, in {name}: its training diverged.")
    sites = _site_descriptions(tensors)
    if not sites:
        raise ActshiftError(f"{path} holds no steering tensors, although its config is that of a steering adapter.")
    layers = [intervention.layers for intervention in interventions]
    parameters = sum(tensor.numel() for tensor in tensors.values())
    base_parameters = _base_parameters(config.base_model_name_or_path, config.revision)
    return AdapterDescription(
        source=str(source),
        base_model=config.base_model_name_or_path,
        site=_join_unique(intervention.site for intervention in interventions),
        adapter=_join_unique(repr(intervention.adapter) for intervention in interventions),
        positions=_join_unique(intervention.positions for intervention in interventions),
        layers=None if None in layers else sorted({layer for chosen in layers for layer in chosen or ()}),
        weights=_lora_summary(config) if isinstance(config, JointConfig) else None,
        dtype=_join_unique(sorted(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        parameters=parameters,
        other_parameters=parameters - sum(site.parameters for site in sites),
        share=parameters / base_parameters if base_parameters else None,
        file_bytes=Path(path).stat().st_size,
        sites=sites,
        base_revision=config.revision,
        strength=config.strength,
    )


def _join_unique(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _lora_summary(config: JointConfig) -> str:
    modules = config.target_modules
    names = modules if isinstance(modules, str) else ", ".join(sorted(modules or ()))
    return f"LoRA r={config.r} on {names}; {config.rule or 'no orthogonality rule'}"


def _site_descriptions(tensors: dict[str, Tensor]) -> tuple[SiteDescription, ...]:
    by_module: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, is_steering, tensor_name = name.removeprefix(PEFT_PREFIX).partition(CONTAINER)
        if is_steering:
            host, _, child = layer.rpartition(".")
            by_module.setdefault(f"{host} (input)" if child == CHILD_AT_INPUT else host, {})[tensor_name] = tensor
    return tuple(_site_description(module, by_module[module]) for module in sorted(by_module, key=_numeric_order))


def _site_description(module: str, tensors: dict[str, Tensor]) -> SiteDescription:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    norms = {name: tensor.double().norm().item() for name, tensor in tensors.items()}
    if {"down.weight", "up.weight"} <= tensors.keys():
        down, up = tensors["down.weight"].double(), tensors["up.weight"].double()
        # ‖U D‖² = tr(UᵀU DDᵀ) needs two r × r matrices instead of one d × d.
        norms["product"] = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt().item()
    return SiteDescription(module, shapes, norms, sum(tensor.numel() for tensor in tensors.values()))


def _numeric_order(module: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def _base_parameters(base: str | None, revision: str | None) -> int | None:
    """Return the number of parameters of the base model if its config is on this machine."""
    try:
        if base and not Path(base).exists():
            cached = try_to_load_from_cache(base, "config.json", revision=revision)
            base = str(Path(cached).parent) if isinstance(cached, str) else None
        return _skeleton(base).num_parameters() if base else None
    except (ActshiftError, OSError, ValueError):  # an adapter can be described without its base; the name may be no id
        return None
