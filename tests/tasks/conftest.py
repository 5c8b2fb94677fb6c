"""A hub that holds what a test puts there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import pytest

Serve = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Let `load_dataset` return the given rows, whatever is asked for, and note what was asked for."""

    def put(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def load_dataset(path: str, name: str | None = None, **arguments: Any) -> datasets.Dataset:
            asked.append({"id": path, "config": name, **arguments})
            return datasets.Dataset.from_list(list(rows))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return put
