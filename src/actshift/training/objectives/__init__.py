"""Training objectives. A module of this package that defines an objective adds it everywhere."""

from importlib import import_module
from pkgutil import iter_modules

from actshift.training.objectives.objective import OBJECTIVES, Examples, Objective

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["OBJECTIVES", "Examples", "Objective"]
