"""Find a model's transformer blocks, from what transformers declares or from the module structure."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from actshift.errors import ActshiftError

NamedModule = tuple[str, nn.Module]


def find_blocks(model: nn.Module, blocks: str | None = None) -> list[NamedModule]:
    """Return the qualified name and the module of every transformer block, in forward order.

    The blocks are found by the first of these rules that matches: the classes whose outputs transformers records as
    `hidden_states`; the classes in `_no_split_modules`; the longest outermost `ModuleList`. Of a multimodal model only
    the text part is searched. For an encoder-decoder the rules are applied to each half, and the result has the
    encoder's blocks, then the decoder's. A block that is used several times (ALBERT) is in the result once.

    Args:
        model: any model. A PEFT wrapper is unwrapped, and the names are relative to the model inside.
        blocks: the qualified name of the list of blocks, which replaces the rules above.

    Raises:
        ActshiftError: no blocks were found, one half of an encoder-decoder has none, `blocks` is not a list of modules,
            or several lists match equally well.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
    >>> [name for name, _ in find_blocks(model)]
    ['1.0', '1.1']
    """
    model = unwrap(model)
    if blocks is not None:
        return _blocks_at(model, blocks)
    text = "" if encoder_and_decoder(model) else _text_part(model, "")
    names = {module: name for name, module in model.named_modules()}
    if (pair := encoder_and_decoder(model.get_submodule(text))) is None:
        return _search(model, text)
    parts = [_text_part(model, names[half]) for half in pair]
    found = [_search(model, name, is_half=True) for name in parts]
    if empty := [name for name, half in zip(parts, found, strict=True) if not half]:
        problem = f"{empty[0]!r} of {type(model).__name__} contains no list of transformer blocks"
        lists = _describe(_outermost_lists(model.named_modules()))
        raise ActshiftError(f"{problem}, so only one half would be steered. Choose a list, as in blocks=NAME: {lists}.")
    return list({block: (name, block) for half in found for name, block in half}.values())


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a PEFT wrapper, or `model` itself if it is not wrapped."""
    get_base_model: Any = getattr(model, "get_base_model", lambda: model)
    return get_base_model()


def text_config(module: nn.Module) -> Any:
    """Return the config of the module's text part, its whole config if that has no parts, or None."""
    config: Any = getattr(module, "config", None)
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # not a transformers config, or one with several text parts
        return config


def encoder_and_decoder(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Return the halves of an encoder-decoder model of transformers, or None for any other model."""
    root: Any = model
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False) or not hasattr(root, "get_decoder"):
        return None
    encoder, decoder = root.get_encoder(), root.get_decoder()
    if decoder is not model and any(module is encoder for module in decoder.modules()):
        return encoder_and_decoder(decoder)  # Florence-2 returns the language model, which has both halves
    is_pair = not any(module is model or module is decoder for module in encoder.modules()) and decoder is not model
    return (encoder, decoder) if is_pair else None


def _text_part(model: nn.Module, within: str) -> str:
    """Return the qualified name of the text part of the module `within`: itself, if it has no other parts."""
    root = model.get_submodule(within)
    config, text = getattr(root, "config", None), text_config(root)
    if text is config or hasattr(config, "encoder"):  # both halves of an encoder-decoder have blocks
        return within
    modules = root.named_modules(prefix=within)
    configs = ((name, getattr(module, "config", None)) for name, module in modules if module is not root)
    return next((name for name, own in configs if getattr(own, "model_type", "") == text.model_type), within)


def _search(model: nn.Module, part: str, is_half: bool = False) -> list[NamedModule]:
    """Return the blocks below the module called `part`. Half of an encoder-decoder has one list of blocks, or none."""
    root = model.get_submodule(part)
    modules = list(root.named_modules(prefix=part))
    for rule in (_recorded_modules, _no_split_modules, _longest_lists):
        if groups := _group_by_list(rule(modules), model):
            return _flatten(model, root, groups, is_half)
    if is_half:
        return []
    raise ActshiftError(f"{type(model).__name__} contains no list of transformer blocks, an nn.ModuleList.")


def _recorded_modules(modules: list[NamedModule]) -> list[NamedModule]:
    targets: set[type | str] = set()
    for _, module in modules:
        recorders: Any = (getattr(type(module), "_can_record_outputs", None) or {}).get("hidden_states", [])
        for recorder in recorders if isinstance(recorders, list | tuple) else [recorders]:
            targets.add(getattr(recorder, "target_class", recorder))  # a recorder of a class, a class, or its name
    return [(name, module) for name, module in modules if targets & {*type(module).__mro__, type(module).__name__}]


def _no_split_modules(modules: list[NamedModule]) -> list[NamedModule]:
    class_names = set[str]().union(*(getattr(module, "_no_split_modules", None) or () for _, module in modules))
    return [(name, module) for name, module in modules if type(module).__name__ in class_names]


def _longest_lists(modules: list[NamedModule]) -> list[NamedModule]:
    """Return the elements of the longest list, and of lists that might be the blocks of another half."""
    lists = _outermost_lists(modules).values()
    longest = max(lists, key=len, default=[])
    alike = [own for own in lists if len(own) == len(longest) or (len(own) > 1 and 2 * _size(own) >= _size(longest))]
    return [block for elements in alike for block in elements]


def _size(elements: list[NamedModule]) -> float:
    """Return the average number of parameters of these modules."""
    return sum(parameter.numel() for _, module in elements for parameter in module.parameters()) / len(elements)


def _outermost_lists(modules: Iterable[NamedModule]) -> dict[str, list[NamedModule]]:
    lists = _outermost((name, module) for name, module in modules if isinstance(module, nn.ModuleList))
    return {name: _elements(name, module) for name, module in lists if _elements(name, module)}


def _outermost(modules: Iterable[NamedModule]) -> list[NamedModule]:
    outermost: list[NamedModule] = []
    for name, module in modules:  # `named_modules` yields a parent before its children
        if not any(name.startswith(outer + ".") for outer, _ in outermost):
            outermost.append((name, module))
    return outermost


def _elements(name: str, module: nn.Module) -> list[NamedModule]:
    """Return the elements of a list, and the elements of lists in it (Funnel)."""
    children = [(f"{name}.{key}", child) for key, child in module.named_children()]
    lists = [_elements(*child) if isinstance(child[1], nn.ModuleList) else [child] for child in children]
    return [element for elements in lists for element in elements]


def _group_by_list(modules: list[NamedModule], root: nn.Module) -> dict[str, list[NamedModule]]:
    """Return the modules by the list that contains them, with all elements of the list: hybrids mix several classes."""
    groups: dict[str, list[NamedModule]] = {}
    for name, module in _outermost(modules):
        parent, _, key = name.rpartition(".")
        if key.isdigit():  # an element of a list; `_no_split_modules` may also name embeddings
            groups.setdefault(parent, []).append((name, module))
    lists = {name: root.get_submodule(name) for name in groups}
    return {
        name: _elements(name, own) if isinstance(own, nn.ModuleList) else groups[name] for name, own in lists.items()
    }


def _flatten(
    model: nn.Module, part: nn.Module, groups: dict[str, list[NamedModule]], is_half: bool
) -> list[NamedModule]:
    """Return the blocks of the only list, or of both lists of an encoder-decoder; raise if there are others."""
    has_halves = not is_half and getattr(getattr(part, "config", None), "is_encoder_decoder", False)
    if has_halves and len(groups) == 1:
        groups = _group_by_list(_longest_lists(list(model.named_modules())), model) | groups
    if len(groups) == 1 or (has_halves and len(groups) == 2):
        return [block for group in groups.values() for block in group]
    problem = f"{type(model).__name__} has {len(groups)} lists that could be its blocks: {_describe(groups)}"
    raise ActshiftError(f"{problem}. Choose one, as in blocks={next(iter(groups))!r}.")


def _blocks_at(model: nn.Module, blocks: str) -> list[NamedModule]:
    modules = dict(model.named_modules())
    chosen = modules.get(blocks)
    if blocks and isinstance(chosen, nn.ModuleList | nn.Sequential) and len(chosen):
        return _elements(blocks, chosen)
    problem = f"is a {type(chosen).__name__}" if chosen is not None else "does not exist"
    lists = _describe(_outermost_lists(modules.items())) or "the model has none"
    raise ActshiftError(f"blocks={blocks!r} {problem} in {type(model).__name__}. Give the name of a list: {lists}.")


def _describe(groups: dict[str, list[NamedModule]]) -> str:
    return ", ".join(f"{name!r} ({len(group)} {type(group[0][1]).__name__})" for name, group in groups.items())
