"""Look things up around a block: its config, its row in the table, and what is at a path inside it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites.architectures import BRANCHES, Branches, Names
from actshift.sites.blocks import text_config


class Found(NamedTuple):
    """What is at a path: the suffix after the block's name, and a module or one stacked parameter of it."""

    suffix: str
    module: nn.Module
    parameter: str | None = None


def config_around(model: nn.Module, block: str) -> Any:
    """Return the config nearest to a block, or None: the two halves of a composite model each have their own."""
    path = block
    while path:
        path = path.rpartition(".")[0]
        if (config := text_config(model.get_submodule(path))) is not None:
            return config
    return None


def width_of(config: Any, block: str) -> int:
    """Return the width d of the residual stream; raise ActshiftError where the config does not tell it."""
    width = getattr(config, "hidden_size", None)  # transformers' attribute_map answers for n_embd and d_model
    if not isinstance(width, int):
        where = "the model has no config" if config is None else f"{type(config).__name__} has no hidden_size"
        raise ActshiftError(f"The width of block {block!r} is not known: {where}; set config.hidden_size.")
    return width


def row_of(config: Any, block: nn.Module, wanted: str, instead: str) -> Branches:
    """Return a model's row of BRANCHES; raise ActshiftError that `wanted` is not known, and what to do `instead`."""
    model_type = getattr(config, "model_type", None)
    if model_type not in BRANCHES:
        raise ActshiftError(
            f"{wanted} is not known for model_type {model_type!r} ({type(block).__name__}); {instead}, or one of: "
            f"{', '.join(sorted(BRANCHES))}."
        )
    return BRANCHES[model_type]


def find_all(block: nn.Module, names: Names) -> list[Found]:
    """Return all of `names` that a block has, in their order."""
    names = (names,) if isinstance(names, str) else names
    return [found for name in names if (found := _descend(block, name))]


def _descend(block: nn.Module, name: str) -> Found | None:
    suffix, module, keys = "", block, name.split(".")
    for position, key in enumerate(keys):
        inner = _inside(module, key)
        children = dict(inner.named_children())
        key = list(children)[int(key)] if key.startswith("-") else key
        suffix = f"{suffix}.{key}"
        if key in children:
            module = children[key]
        elif position == len(keys) - 1 and isinstance(getattr(inner, key, None), Tensor):
            return Found(suffix, module, key)
        else:
            return None
    return Found(suffix, module)


def _inside(module: nn.Module, key: str) -> nn.Module:
    """Look through PEFT's wrappers of a module with stacked parameters, one for each parameter."""
    while not hasattr(module, key) and isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module
