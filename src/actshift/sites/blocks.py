"""Find a model's transformer blocks: by what the model declares, and by its structure where it does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from actshift.errors import ActshiftError

Named = tuple[str, nn.Module]


def find_blocks(model: nn.Module, blocks: str | None = None) -> list[Named]:
    """Return the qualified name and the module of every transformer block, in forward order.

    Evidence, strongest first: `blocks`, the qualified name of the list that holds them; the classes whose
    outputs transformers records as `hidden_states`; `_no_split_modules`; the longest outermost
    `ModuleList`. In a multimodal model only the text part is searched; an encoder-decoder gives its
    encoder's blocks, then its decoder's. A PEFT wrapper is looked through, and names are then relative to the
    model inside.

    Raises:
        ActshiftError: no block was found, `blocks` is not such a list, or several lists fit equally well.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
        >>> [name for name, _ in find_blocks(model)]
        ['1.0', '1.1']
    """
    model = unwrap(model)
    if blocks is not None:
        return _called(model, blocks)
    tower = _text_tower(model)
    inside = list(model.get_submodule(tower).named_modules(prefix=tower))
    for evidence in (_recorded, _unsplit, _longest):
        if groups := _by_list(evidence(inside)):
            return _unambiguous(model, inside[0][1], groups)
    raise ActshiftError(
        f"{type(model).__name__} holds no list of transformer blocks; "
        "actshift steers models whose blocks sit in an nn.ModuleList."
    )


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a PEFT wrapper, or `model` itself where there is none."""
    get_base_model: Any = getattr(model, "get_base_model", lambda: model)
    return get_base_model()


def text_config(module: nn.Module) -> Any:
    """Return the config of the module's text part (its whole config where it has no parts), or None."""
    config: Any = getattr(module, "config", None)
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # not a transformers config, or one with several text parts
        return config


def _text_tower(model: nn.Module) -> str:
    config, text = getattr(model, "config", None), text_config(model)
    if text is config or hasattr(config, "encoder"):  # with an encoder and a decoder in it, both have blocks
        return ""
    own_types = ((name, getattr(module, "config", None)) for name, module in model.named_modules() if name)
    return next((name for name, own in own_types if getattr(own, "model_type", "") == text.model_type), "")


def _recorded(inside: list[Named]) -> list[Named]:
    wanted: set[type | str] = set()
    for _, module in inside:
        entry = (getattr(type(module), "_can_record_outputs", None) or {}).get("hidden_states", [])
        for recorder in entry if isinstance(entry, list | tuple) else [entry]:
            wanted.add(getattr(recorder, "target_class", recorder))  # a class, its name, or a recorder of one
    return [(name, m) for name, m in inside if wanted & {*type(m).__mro__, type(m).__name__}]


def _unsplit(inside: list[Named]) -> list[Named]:
    wanted = set().union(*(getattr(module, "_no_split_modules", None) or () for _, module in inside))
    return [(name, module) for name, module in inside if type(module).__name__ in wanted]


def _longest(inside: list[Named]) -> list[Named]:
    lists = _lists(inside)
    longest = max((len(elements) for elements in lists.values()), default=0)
    return [block for elements in lists.values() if len(elements) == longest for block in elements]


def _lists(inside: Iterable[Named]) -> dict[str, list[Named]]:
    lists = _outermost((name, module) for name, module in inside if isinstance(module, nn.ModuleList))
    return {name: _elements(name, module) for name, module in lists if _elements(name, module)}


def _outermost(named: Iterable[Named]) -> list[Named]:
    found: list[Named] = []
    for name, module in named:  # in named_modules order a parent comes before all that is inside it
        if not any(name.startswith(outer + ".") for outer, _ in found):
            found.append((name, module))
    return found


def _elements(name: str, module: nn.Module) -> list[Named]:
    return [(f"{name}.{key}", child) for key, child in module.named_children()]


def _by_list(found: list[Named]) -> dict[str, list[Named]]:
    groups: dict[str, list[Named]] = {}
    for name, module in _outermost(found):
        parent, _, key = name.rpartition(".")
        if key.isdigit():  # an element of a list; `_no_split_modules` may name embeddings too
            groups.setdefault(parent, []).append((name, module))
    return groups


def _unambiguous(model: nn.Module, tower: nn.Module, groups: dict[str, list[Named]]) -> list[Named]:
    two_stacks = getattr(getattr(tower, "config", None), "is_encoder_decoder", False) and len(groups) == 2
    if len(groups) == 1 or two_stacks:
        return [block for group in groups.values() for block in group]
    raise ActshiftError(
        f"{type(model).__name__} has {len(groups)} lists that could be its blocks: {_listing(groups)}; "
        f"name the one to steer, as in blocks={next(iter(groups))!r}."
    )


def _called(model: nn.Module, blocks: str) -> list[Named]:
    modules = dict(model.named_modules())
    chosen = modules.get(blocks)
    if blocks and isinstance(chosen, nn.ModuleList | nn.Sequential) and len(chosen):
        return _elements(blocks, chosen)
    listing = _listing(_lists(modules.items())) or "it has none"
    found = f"is a {type(chosen).__name__}" if chosen is not None else "does not exist"
    raise ActshiftError(f"blocks={blocks!r} {found} in {type(model).__name__}; name a list of blocks: {listing}.")


def _listing(groups: dict[str, list[Named]]) -> str:
    return ", ".join(f"{name!r} ({len(group)} {type(group[0][1]).__name__})" for name, group in groups.items())
