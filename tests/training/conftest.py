from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actshift.training import TrainResult, TrainSettings, train
from tests.characters import save_model, sums, write_rows
from tests.training.helpers import METHODS


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "sums.jsonl", sums(40))


@pytest.fixture
def settings(model_folder, rows_file, tmp_path) -> TrainSettings:
    """A run of ten steps, with a checkpoint after every second."""
    return TrainSettings(
        model=str(model_folder),
        data=str(rows_file),
        out=str(tmp_path / "run"),
        max_steps=10,
        save_steps=2,
        batch_size=4,
        gradient_accumulation=2,
        learning_rate=1e-2,
    )


@pytest.fixture
def trained(settings) -> TrainResult:
    return train(replace(settings, eval_share=0.25, rank=32))


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def chosen(settings: TrainSettings, method: str) -> TrainSettings:
    return replace(settings, max_steps=4, **METHODS[method])
