"""A module that weighs little: of thousands of adapters most are only held, and nobody hooks on to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn

_MADE_ON_FIRST_USE: dict[str, Callable[[], Any]] = {
    name: type(value) for name, value in vars(nn.Module()).items() if isinstance(value, OrderedDict | set)
}


class LightModule(nn.Module):
    """An nn.Module whose dictionaries of hooks are made when somebody asks for them, and not before: 2 kB less.

    Mixed in before the class that it makes light, `class LightLinear(LightModule, nn.Linear)`.

    >>> light = LightModule()
    >>> "_forward_hooks" in vars(light), len(light._forward_hooks), "_forward_hooks" in vars(light)
    (False, 0, True)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lighten()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Stay light as a copy, and when unpickled: nn.Module fills in what is missing."""
        super().__setstate__(state)
        self.lighten()

    def lighten(self) -> None:
        """Let go of the dictionaries that were asked for and stayed empty."""
        # Put back whole, for a dict keeps its size when entries are taken out of it.
        self.__dict__ = {
            name: value for name, value in self.__dict__.items() if value or name not in _MADE_ON_FIRST_USE
        }


for _name, _make in _MADE_ON_FIRST_USE.items():
    _property = cached_property(lambda self, make=_make: make())
    _property.__set_name__(LightModule, _name)
    setattr(LightModule, _name, _property)


class LightLinear(LightModule, nn.Linear):
    """An nn.Linear of less weight."""


def lighten(module: nn.Module) -> None:
    """Lighten what can be in a module: to build and to load it asks for dictionaries that stay empty."""
    for part in module.modules():
        if isinstance(part, LightModule):
            part.lighten()
