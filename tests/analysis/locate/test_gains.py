from __future__ import annotations

import math

import pytest
import torch

from actshift import locate
from actshift.analysis.locate import Estimate
from actshift.analysis.locate.gains import combined_gain
from tests.gradients.parity import batch_of, model_of


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = tuple(((values.sum() - value) / 9).item() for value in values)
    estimate = Estimate(values.mean().item(), without)
    assert estimate.error == pytest.approx((values.std() / 10**0.5).item())
    assert not estimate.minus(estimate).clear
    assert Estimate(1.0).error is None and not Estimate(1.0).clear


def test_the_error_of_a_difference_ignores_common_noise():
    """Groups that change both estimates alike hardly change their difference."""
    first = Estimate(10.0, (9.0, 10.0, 11.0))
    second = Estimate(9.5, (8.5, 9.5, 10.5))
    assert first.error > 1 and first.minus(second).clear
    assert combined_gain([Estimate(3.0, (3.0, 0.0)), Estimate(4.0, (4.0, 1.0))]).without == (5.0, 1.0)


def test_the_standard_error_matches_the_spread_over_new_data():
    """Compare the standard error with the spread over independent draws of the same number of batches."""
    model = model_of()
    draws = [[batch_of(2, 9, 3, seed=100 * draw + number) for number in range(8)] for draw in range(12)]
    gains = [locate(model, draw, ["post_block"], [1], rank=2, weights=False).places[0].gain(2) for draw in draws]
    spread = torch.tensor([gain.value for gain in gains]).std().item()
    stated = torch.tensor([gain.error for gain in gains]).mean().item()
    assert 0.4 < stated / spread < 2.5


def test_an_estimate_prints_its_standard_error():
    assert str(Estimate(6.02993, (5.97, 6.09))) == "6.03 ± 0.06" and str(Estimate(0.5)) == "0.5"


def test_gains_rise_with_the_rank_and_their_squares_add(report):
    for place in report.places:
        gains = [place.gain(rank).value for rank in range(1, 5)]
        assert gains == sorted(gains) and len(place.singular_values) == 4
        assert gains[-1] == pytest.approx(math.sqrt(sum(value**2 for value in place.singular_values)))
    assert report.ranks == (1, 2, 4) and report.groups == 6 and report.batches == 6
    best = report.methods[0]
    assert all(best.per_parameter.value >= method.per_parameter.value for method in report.methods)
