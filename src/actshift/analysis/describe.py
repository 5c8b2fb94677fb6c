"""Tell an adapter from a model, and describe it."""

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
from actshift.loading import explained, load_config
from actshift.sites import SITES, find_blocks, resolve
from actshift.tuner import JointConfig, SteeringConfig, read_config
from actshift.tuner.checkpoint import CONFIG_NAME, PEFT_PREFIX, fetch
from actshift.tuner.layer import CHILD_AT_INPUT, CONTAINER

RANK = 8


@dataclass(frozen=True)
class SiteOption:
    """A site of a model: its hosts in forward order and what a rank-8 adapter on all of them costs, or why not."""

    site: str
    hosts: tuple[str, ...]
    parameters: int
    share: float
    problem: str | None = None


@dataclass(frozen=True)
class ModelDescription:
    """A model: its blocks, its parameters, and the sites it can be steered at."""

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
        """Return every field, ready for JSON."""
        return {"kind": "model", **asdict(self)}


def describe_model(source: str) -> ModelDescription:
    """Describe the model in folder or hub repository `source` from its config; of weights only headers are read.

    Raises:
        ActshiftError: no such model, a damaged file, or a model whose blocks cannot be told.

    Example:
        >>> from actshift.demo import BASE_DIR
        >>> describe_model(str(BASE_DIR)).blocks
        6
    """
    model = _skeleton(source)
    file_bytes = _check_weights(source)
    parameters = model.num_parameters()
    blocks = find_blocks(model)
    return ModelDescription(
        source=str(source),
        architecture=type(model).__name__,
        model_type=model.config.model_type,
        blocks=len(blocks),
        block=type(blocks[0][1]).__name__,
        d_model=resolve(model)[0].width,
        parameters=parameters,
        file_bytes=file_bytes,
        sites=tuple(_option(model, site, parameters) for site in SITES),
    )


def count_parameters(source: str) -> int:
    """Return the number of a model's parameters, tied ones once, from its config.

    Raises ActshiftError as `describe_model` does.
    """
    return _skeleton(source).num_parameters()


def _skeleton(source: str) -> PreTrainedModel:
    """The model without memory for its weights: parameters on the meta device."""
    config = load_config(source)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    with explained(source), torch.device("meta"):
        return kind(config) if kind is not None else AutoModel.from_config(config)


def _option(model: nn.Module, site: str, parameters: int) -> SiteOption:
    try:
        hosts = resolve(model, site)
    except ActshiftError as error:
        return SiteOption(site, (), 0, 0.0, str(error))
    cost = sum(LowRank(rank=RANK).parameter_count(host.width) for host in hosts)
    return SiteOption(site, tuple(host.name for host in hosts), cost, cost / parameters)


def _check_weights(source: str) -> int | None:
    files = sorted(Path(source).glob("*.safetensors"))
    for file in files:
        with explained(source), safe_open(file, framework="pt"):
            pass
    return sum(file.stat().st_size for file in files) or None


@dataclass(frozen=True)
class SiteDescription:
    """One steered module: the shapes and Frobenius norms of its tensors.

    `norms["product"]` is ‖W_up W_down‖_F where there are both, the size of the whole linear map.
    """

    module: str
    shapes: dict[str, tuple[int, ...]]
    norms: dict[str, float]
    parameters: int


@dataclass(frozen=True)
class AdapterDescription:
    """A saved adapter: what its config says, and what its tensors are.

    `weights` tells the LoRA half of a joint adapter, None for steering alone. `share` is its parameters over the
    base's, None where the base's config is not on this machine; `other_parameters` are those of tensors that steer
    nothing: LoRA's, and PEFT's `modules_to_save`.
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

    def to_dict(self) -> dict[str, Any]:
        """Return every field, ready for JSON."""
        return {"kind": "adapter", **asdict(self)}


def describe_adapter(source: str) -> AdapterDescription:
    """Read the config and the tensors of the adapter in folder or hub repository `source`.

    Raises:
        ActshiftError: no steering adapter, a damaged or foreign file, or values that are not finite.

    Example:
        >>> describe_adapter("run").sites[0].norms["product"]  # doctest: +SKIP
    """
    config = read_config(source)
    assert config.stored is not None  # read_config compared it with the file's header
    path = config.stored.path
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ActshiftError(f"{path} holds values that are not finite, in {name}; its training diverged.")
    sites = _sites(tensors)
    if not sites:
        raise ActshiftError(f"{path} holds no steering tensors, though its config is a steering adapter's.")
    total = sum(tensor.numel() for tensor in tensors.values())
    base = _base_parameters(config.base_model_name_or_path)
    return AdapterDescription(
        source=str(source),
        base_model=config.base_model_name_or_path,
        site=_joined(one.site for one in config.all_interventions),
        adapter=_joined(repr(one.adapter) for one in config.all_interventions),
        positions=_joined(str(one.positions) for one in config.all_interventions),
        layers=_layers(config),
        weights=_weights(config) if isinstance(config, JointConfig) else None,
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        parameters=total,
        other_parameters=total - sum(site.parameters for site in sites),
        share=total / base if base else None,
        file_bytes=Path(path).stat().st_size,
        sites=sites,
    )


def _weights(config: JointConfig) -> str:
    maps = (
        config.target_modules
        if isinstance(config.target_modules, str)
        else ", ".join(sorted(config.target_modules or ()))
    )
    return f"LoRA r={config.r} on {maps}; {config.rule or 'no orthogonality rule'}"


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _layers(config: SteeringConfig) -> list[int] | None:
    chosen = [one.layers for one in config.all_interventions]
    return None if None in chosen else sorted({layer for layers in chosen for layer in layers or ()})


def _sites(tensors: dict[str, Tensor]) -> tuple[SiteDescription, ...]:
    by_module: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, steers, own = name.removeprefix(PEFT_PREFIX).partition(CONTAINER)
        if steers:
            by_module.setdefault(_host(module), {})[own] = tensor
    return tuple(
        SiteDescription(
            module,
            {name: tuple(tensor.shape) for name, tensor in own.items()},
            _norms(own),
            sum(tensor.numel() for tensor in own.values()),
        )
        for module, own in sorted(by_module.items(), key=lambda item: _in_order(item[0]))
    )


def _host(layer: str) -> str:
    host, _, child = layer.rpartition(".")
    return f"{host} (input)" if child == CHILD_AT_INPUT else host


def _norms(tensors: dict[str, Tensor]) -> dict[str, float]:
    norms = {name: tensor.double().norm().item() for name, tensor in tensors.items()}
    if {"down.weight", "up.weight"} <= tensors.keys():
        down, up = tensors["down.weight"].double(), tensors["up.weight"].double()
        # ‖U D‖² = tr(UᵀU DDᵀ): two r × r matrices in place of one d × d
        norms["product"] = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt().item()
    return norms


def _in_order(module: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def _base_parameters(base: str | None) -> int | None:
    if not base:
        return None
    if not Path(base).is_dir():
        cached = try_to_load_from_cache(base, "config.json") if base.count("/") <= 1 else None
        if not isinstance(cached, str):
            return None
        base = str(Path(cached).parent)
    try:
        return count_parameters(base)
    except ActshiftError:  # the base is a side matter here
        return None


def describe(source: str) -> AdapterDescription | ModelDescription:
    """Describe the adapter or the model in folder or hub repository `source`, without loading a model.

    Raises:
        ActshiftError: it is neither, or one of its files is damaged.

    Example:
        >>> from actshift.demo import BASE_DIR
        >>> describe(str(BASE_DIR)).model_type
        'llama'
    """
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in (CONFIG_NAME, "config.json")):
        raise ActshiftError(f"The folder {source} is no adapter and no model: it has no {CONFIG_NAME} or config.json.")
    try:
        fetch(source, CONFIG_NAME)
    except ActshiftError:
        return describe_model(source)
    return describe_adapter(source)
