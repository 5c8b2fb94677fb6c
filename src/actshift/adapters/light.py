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

HOOKS_OF_A_CALL = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Those that are made together, so that to miss one is to miss all."""


class LightModule(nn.Module):
    """An nn.Module whose dictionaries of hooks are made when somebody asks for them, and not before: 1.6 kB less.

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
        unused = {name for name in _MADE_ON_FIRST_USE if not self.__dict__.get(name)}
        if not unused.issuperset(HOOKS_OF_A_CALL):
            unused.difference_update(HOOKS_OF_A_CALL)
        # Put back whole, for a dict keeps its size when entries are taken out of it.
        self.__dict__ = {name: value for name, value in self.__dict__.items() if name not in unused}


def _made_on_first_use(name: str) -> Any:
    together = HOOKS_OF_A_CALL if name in HOOKS_OF_A_CALL else (name,)

    def make(self: LightModule) -> Any:
        for one in together:
            self.__dict__.setdefault(one, _MADE_ON_FIRST_USE[one]())
        return self.__dict__[name]

    made = cached_property(make)
    made.__set_name__(LightModule, name)
    return made


for _name in _MADE_ON_FIRST_USE:
    setattr(LightModule, _name, _made_on_first_use(_name))


class LightLinear(LightModule, nn.Linear):
    """An nn.Linear of less weight."""


def lighten(module: nn.Module) -> None:
    """Lighten what can be in a module: to build and to load it asks for dictionaries that stay empty."""
    for part in module.modules():
        if isinstance(part, LightModule):
            part.lighten()
