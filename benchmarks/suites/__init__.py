"""What is measured: one file a subject, each with `measure(quick)`; its docstring is what the page says of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol

from benchmarks.figure import Figure, Note

TITLES = {
    "training": "A training step",
    "locate": "Where to steer",
    "generation": "Generation",
    "peers": "pyreft, in a process of its own",
    "adapters": "Adapters: on disk, loaded, switched, a thousand of them",
    "startup": "Start-up",
    "cache_prefix": "Training the upper blocks with the prefix cached",
    "padding": "Padding",
    "growth": "How it grows",
    "profile": "Where the time goes",
    "adaptation": "Steps to a target",
    "gpu": "On a GPU",
}
"""Every suite with its heading, in the order of the page and of a run."""


class Suite(Protocol):
    """What a suite's module has."""

    __doc__: str | None

    @staticmethod
    def measure(quick: bool) -> Iterator[Figure | Note]:
        """Measure, and yield each figure when it is known; `quick` looks only whether everything runs."""
        ...


def suite(name: str) -> Suite:
    """Return a suite's module."""
    return import_module(f"benchmarks.suites.{name}")  # type: ignore[return-value]
