"""What a model is and where it can be steered, read from its config: no weights are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn
from transformers import AutoModel, PreTrainedModel

from actshift.adapters import LowRank
from actshift.errors import ActshiftError
from actshift.loading import explained, load_config
from actshift.sites import SITES, find_blocks, resolve

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
