"""Find plug-ins: import every module of a package, and collect the instances that the modules define."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

T = TypeVar("T")


def instances_in(package: str, cls: type[T]) -> list[T]:
    """Return the module-level instances of a class in all modules of a package, in the order of their definition.

    >>> from actshift.tasks.scorers import Scorer
    >>> [scorer.name for scorer in instances_in("actshift.tasks.scorers", Scorer)]
    ['exact', 'boolean', 'label', 'choice', 'number']
    """
    modules = [import_module(module.name) for module in iter_modules(import_module(package).__path__, f"{package}.")]
    return [item for module in modules for item in vars(module).values() if isinstance(item, cls)]
