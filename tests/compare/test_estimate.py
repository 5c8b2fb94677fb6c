"""The estimate of a comparison: cells, parameters and times, without an output folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actshift.compare import CompareSettings
from actshift.compare.estimate import Throughput, estimate


def test_estimate_counts_cells_and_parameters_and_shares_the_time_between_jobs(
    settings: CompareSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # which would outlive the test
    expected = estimate(replace(settings, epochs=None, max_steps=6, seeds=2, jobs=2))
    assert expected.cells[0] == "base"
    assert expected.cells[1:4] == (
        "full, learning rate 1e-05, seed 0",
        "full, learning rate 2e-05, seed 0",
        "full, the learning rate chosen, seed 1",
    )
    assert len(expected.cells) == 1 + sum(method.cells for method in expected.lines)
    assert [(method.method, method.trainable) for method in expected.lines] == [
        ("full", 1_298_432),
        ("vector", 6 * 128),
        ("mine", 6 * 2 * 2 * 128),
    ]
    assert (expected.steps, expected.rows) == (6, {"train": 20, "validation": 5, "test": 5})
    assert expected.pace.label == "post-block vector"
    base = 10 * expected.pace.completion
    assert expected.seconds == pytest.approx((base + sum(method.seconds for method in expected.lines)) / 2)
    assert not Path(str(settings.out)).exists()


def test_the_steps_of_many_rows_are_estimated_from_a_sample(
    settings: CompareSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actshift.training.data.SAMPLE", 10)
    pace = Throughput("mine", 1.0, 1.0, 1.0)
    monkeypatch.setattr("actshift.compare.estimate.measure_throughput", lambda comparison: pace)
    assert estimate(replace(settings, epochs=2)).steps == 4
