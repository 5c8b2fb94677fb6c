"""The benchmark suites, one module each with a function `measure(quick)`. The page shows the module docstring."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol

from benchmarks.figure import Figure, Note

TITLES = {
    "training": "A training step",
    "locate": "Where to steer",
    "generation": "Generation",
    "real": "A real model",
    "peers": "pyreft, in a separate process",
    "adapters": "Adapters: size, loading, switching, a thousand in one model",
    "startup": "Start-up",
    "cache_prefix": "Training the upper blocks with a prefix cache",
    "padding": "Padding",
    "growth": "How it grows",
    "profile": "Where the time goes",
    "adaptation": "Steps to a target",
    "gpu": "On a GPU",
}
"""The heading of every suite, in the order of the page and of a run."""


class Suite(Protocol):
    """The interface of a suite module."""

    __doc__: str | None

    @staticmethod
    def measure(quick: bool) -> Iterator[Figure | Note]:
        """Yield each figure as soon as it is measured. `quick` only checks that everything runs."""
        ...


def suite(name: str) -> Suite:
    """Return the module of a suite."""
    return import_module(f"benchmarks.suites.{name}")  # type: ignore[return-value]
