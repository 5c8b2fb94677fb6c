"""Resolve a site's name and layers to the modules of one model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from actshift.errors import ActshiftError
from actshift.sites.architectures import BRANCHES
from actshift.sites.blocks import find_blocks, text_config, unwrap
from actshift.sites.site import Host, check_site


def resolve(
    model: nn.Module, site: str = "post_block", layers: Sequence[int] | None = None, blocks: str | None = None
) -> list[Host]:
    """Return the modules of `model` that a steering site stands for, one per layer, in the order of `layers`.

    `layers` counts blocks from 0, or from the end if negative; None is every block. `blocks` names the list of
    blocks where the model leaves that open. `post_block` works with any model; `post_mlp` and `post_attention` need
    a row in `BRANCHES`.

    Raises:
        ActshiftError: an unknown site, a layer twice or out of range, a model whose blocks, branches or width
            cannot be told.
    """
    check_site(site)
    model = unwrap(model)
    found = find_blocks(model, blocks)
    hosts = []
    for layer in _indices(layers, len(found), type(model).__name__):
        name, block = found[layer]
        config = _config_around(model, name)
        suffix, module = _branch(block, site, config, type(model).__name__)
        hosts.append(Host(site, layer, name + suffix, module, _width(config, name)))
    return hosts


def _indices(layers: Sequence[int] | None, count: int, kind: str) -> list[int]:
    if layers is None:
        return list(range(count))
    chosen: list[int] = []
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ActshiftError(
                f"Layer {layer!r} is not a whole number; layers are block indices such as 0 or -1."
            )
        if not -count <= layer < count:
            raise ActshiftError(
                f"Layer {layer} is out of range: {kind} has {count} blocks, 0 to {count - 1} (or {-count} to -1)."
            )
        if layer % count in chosen:
            raise ActshiftError(
                f"Layer {layer} is given twice in {list(layers)}: {kind} has {count} blocks; name each once."
            )
        chosen.append(layer % count)
    if not chosen:
        raise ActshiftError(
            f"No layer is given; name some of {kind}'s {count} blocks, or leave layers out for all of them."
        )
    return chosen


def _config_around(model: nn.Module, block: str):
    """The config nearest to a block: in a composite model encoder and decoder, text and vision, have each their own."""
    path = block
    while path:
        path = path.rpartition(".")[0]
        if (config := text_config(model.get_submodule(path))) is not None:
            return config
    return None


def _width(config, block: str) -> int:
    width = getattr(
        config, "hidden_size", None
    )  # n_embd and d_model answer to it through transformers' attribute_map
    if isinstance(width, int):
        return width
    where = type(config).__name__ if config is not None else "no config at all"
    raise ActshiftError(
        f"The width of {block} is unknown: the model's config ({where}) has no hidden_size; set it there."
    )


def _branch(block: nn.Module, site: str, config, kind: str) -> tuple[str, nn.Module]:
    if site == "post_block":
        return "", block
    model_type = getattr(config, "model_type", None)
    if model_type not in BRANCHES:
        raise ActshiftError(
            f"{site} is not known for {kind} (model_type {model_type!r}); it is for {', '.join(sorted(BRANCHES))}. "
            "Use site='post_block', which works with any model."
        )
    branches = BRANCHES[model_type]
    paths = branches.mlp if site == "post_mlp" else branches.attention
    for path in (paths,) if isinstance(paths, str) else paths:
        if found := _descend(block, path):
            return found
    raise ActshiftError(
        f"{site} of model_type {model_type!r} is expected at {paths!r}, which {type(block).__name__} does not have; "
        "this transformers version names it differently. Use site='post_block', or another version."
    )


def _descend(block: nn.Module, path: str) -> tuple[str, nn.Module] | None:
    suffix, module = "", block
    for key in path.split("."):
        if key.startswith("-"):
            key = str(len(module) + int(key))  # type: ignore[arg-type]
        child = getattr(module, key, None)
        if not isinstance(child, nn.Module):
            return None
        suffix, module = f"{suffix}.{key}", child
    return suffix, module
