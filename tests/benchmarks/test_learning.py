"""Training runs until a target loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.learning import bundled, race
from benchmarks.methods import OURS
from benchmarks.starts import GRADIENT, STARTS


@pytest.fixture(scope="module")
def task():
    return bundled()


@pytest.mark.slow
def test_a_run_ends_at_the_target_and_counts_the_init(task):
    run = race(replace(task, target=9.0), STARTS[GRADIENT], 1e-2, seed=1)
    assert run.steps == run.looked <= 20 and run.loss <= 9
    assert 0 < run.init_seconds < run.seconds


def test_a_run_that_misses_the_target_has_no_steps(task):
    run = race(task, STARTS[OURS], 1e-3, seed=1, most=2)
    assert (run.steps, run.looked) == (None, 2) and run.loss > task.target


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
def test_every_method_starts_with_the_loss_of_the_base_model(task, name):
    [first, second] = (race(task, start, 0.0, seed=1, most=2).loss for start in (STARTS[name], lambda t, m, b: m))
    assert first == pytest.approx(second, rel=1e-4)
