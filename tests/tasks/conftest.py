"""A mocked hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import pytest

Serve = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Make `load_dataset` return `rows` for every request, and record the requests."""

    def put(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []

        def load_dataset(path: str, name: str | None = None, **arguments: Any) -> datasets.Dataset:
            requests.append({"id": path, "config": name, **arguments})
            return datasets.Dataset.from_list(list(rows))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return requests

    return put
