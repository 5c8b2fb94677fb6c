"""The search for learning rates."""

from __future__ import annotations

import math

import pytest

from benchmarks import rates
from benchmarks.learning import MOST, Run


@pytest.mark.parametrize("fastest", [1e-1, 1e-2, 1e-4])
def test_the_search_extends_past_the_edges_and_stops_runs_at_twice_the_best(monkeypatch, fastest):
    limits = []

    def race(task, start, rate, seed, most):
        limits.append(most)
        steps = round(20 * 2 ** abs(2 * math.log10(rate / fastest)))
        return Run(steps if steps <= most else None, 1.0, 0.0, min(steps, most), 0.1)

    monkeypatch.setattr(rates, "race", race)
    runs = rates.search(None, None, first=-5)
    best = rates.best(runs)
    assert rates.rate_of(best) == fastest
    assert {best - 1, best + 1} <= set(runs) and len(runs) >= 4
    assert limits[0] == MOST and limits[-1] == 40


def test_ties_in_steps_go_to_the_lower_loss():
    runs = {-5: Run(20, 1.0, 0.0, 20, 0.09), -4: Run(20, 1.0, 0.0, 20, 0.08), -3: Run(None, 1.0, 0.0, 40, 0.05)}
    assert rates.best(runs) == -4
    assert [rates.rate_of(half_decade) for half_decade in runs] == [3e-3, 1e-2, 3e-2]
