"""Every module of a model but those inside adapters, of which a server may hold thousands."""

from __future__ import annotations

from collections.abc import Iterator

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def modules_around_adapters(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `root.named_modules()` does, in its order, and go into no adapter of a PEFT layer.

    >>> [name for name, _ in modules_around_adapters(nn.Sequential(nn.Linear(1, 1), nn.Tanh()))]
    ['', '0', '1']
    """
    seen, waiting = set(), [("", root)]
    while waiting:
        name, module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        yield name, module
        inside = module.adapter_layer_names if isinstance(module, BaseTunerLayer) else ()
        children = [
            (f"{name}.{key}" if name else key, child)
            for key, child in module._modules.items()
            if child is not None and key not in inside
        ]
        waiting.extend(reversed(children))
