"""Every module of a model but those inside adapters, of which a server may hold thousands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
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


class OnlyOne(dict[str, Any]):
    """The modules of a container, put in their place so that walks through it find one at most; of the others it knows.

    It is `{name: everyone[name]}`, or empty where there is none of that name.
    """

    def __init__(self, everyone: dict[str, Any], name: str) -> None:
        super().__init__({name: everyone[name]} if name in everyone else {})
        self.everyone = everyone


def everyone_in(container: Any) -> dict[str, Any]:
    """Return the modules of a container by name, whether walks find them all or not."""
    found = container._modules
    return found.everyone if isinstance(found, OnlyOne) else found


def device_and_dtype(host: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return where a host's own parameters are, and their dtype, CPU and float32 for a host without.

    Quantised weights are integers, so the first floating tensor tells the dtype.

    >>> device_and_dtype(nn.Linear(1, 1).half())
    (device(type='cpu'), torch.float16)
    """
    own = [parameter for _, module in modules_around_adapters(host) for parameter in module.parameters(recurse=False)]
    device = own[0].device if own else torch.device("cpu")
    return device, next((parameter.dtype for parameter in own if parameter.is_floating_point()), torch.float32)
