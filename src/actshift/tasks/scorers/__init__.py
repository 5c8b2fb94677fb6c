"""Scorers, which read the answer in a completion and compare it with the gold answer, without partial credit.

Every module-level `Scorer` in a file of this package is registered by its name.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from actshift.errors import ActshiftError, did_you_mean
from actshift.tasks.scorers.base import Scorer
from actshift.tasks.scorers.choice import label_scorer

__all__ = ["SCORERS", "Scorer", "get_scorer", "instances_in", "label_scorer"]

T = TypeVar("T")


def instances_in(package: str, cls: type[T]) -> list[T]:
    """Return the module-level instances of a class in all modules of a package, in the order of their definition."""
    modules = [import_module(module.name) for module in iter_modules(import_module(package).__path__, f"{package}.")]
    return [item for module in modules for item in vars(module).values() if isinstance(item, cls)]


SCORERS = {scorer.name: scorer for scorer in instances_in(__name__, Scorer)}
"""All scorers by name."""


def get_scorer(name: str) -> Scorer:
    """Return the scorer of this name, or raise ActshiftError if there is none.

    >>> get_scorer("choice")("(B)", {"answer": "B", "choices": ["oak", "pear"]})
    True
    """
    if name in SCORERS:
        return SCORERS[name]
    hint = did_you_mean(name, SCORERS)
    raise ActshiftError(f"There is no scorer {name!r}{hint}; the scorers are {', '.join(SCORERS)}.")
