from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach, locate
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
    assert str(Estimate(88.21, (70.0, 110.0))) == "88 ± 20" and str(Estimate(1234.0, (900, 500))) == "1,234 ± 200"
    assert str(Estimate(1.7, (1.76, 1.64))) == "1.70 ± 0.06" and str(Estimate(2e-7, (1e-7, 3e-7))) == "2e-07 ± 1e-07"


def test_gains_rise_with_the_rank_and_their_squares_add(report):
    for place in report.places:
        gains = [place.gain(rank).value for rank in range(1, 5)]
        assert gains == sorted(gains) and len(place.singular_values) == 4
        assert gains[-1] == pytest.approx(math.sqrt(sum(value**2 for value in place.singular_values)))
    assert report.ranks == (1, 2, 4) and report.groups == 6 and report.batches == 6
    best = report.methods[0]
    assert all(best.per_parameter.value >= method.per_parameter.value for method in report.methods)


def cost_and_squared_gain(report, config) -> tuple[int, float]:
    """Return the trained parameters of a config, and the Σσ² of its ranks."""
    model = attach(model_of(), config)
    squares = sum(
        value**2
        for intervention in config.all_interventions
        for place in report.at(intervention.site)
        if place.layer in intervention.layers
        for value in place.singular_values[: intervention.adapter.rank]
    )
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad), squares


def test_the_allocation_stays_within_the_budget_and_is_optimal(report):
    """Compare it with every other allocation to the three sites of one block."""
    small = dataclasses.replace(report, places=tuple(p for p in report.places if p.layer == 1 and not p.weight))
    for ranks in (1, 2, 4, 5, 7):
        parameters, squares = cost_and_squared_gain(small, small.to_config(ranks * 64 + 63))
        assert parameters == ranks * 64
        allocations = [allocation for allocation in itertools.product(range(5), repeat=3) if sum(allocation) <= ranks]
        best = max(
            sum(
                value**2
                for place, rank in zip(small.places, allocation, strict=True)
                for value in place.singular_values[:rank]
            )
            for allocation in allocations
        )
        assert squares == pytest.approx(best)


def test_a_fraction_is_of_the_models_parameters(report):
    config = report.to_config(0.02, activation=None, task_type="CAUSAL_LM", init="gradient")
    parameters, _ = cost_and_squared_gain(report, config)
    assert 0.02 * report.parameters - 64 < parameters <= 0.02 * report.parameters
    assert {intervention.adapter.activation for intervention in config.all_interventions} == {None}
    assert {intervention.adapter.init for intervention in config.all_interventions} == {"gradient"}
    assert config.task_type == "CAUSAL_LM"
    assert SteeringConfig(**config.steering_dict()).all_interventions == config.all_interventions


def test_a_huge_budget_buys_all_ranks_and_no_more(report):
    parameters, _ = cost_and_squared_gain(report, report.to_config(10**9))
    assert parameters == 9 * 4 * 64


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (63, "buys nothing: rank 1 at one site takes 64"),
        (1e-9, "buys nothing"),
        (0, "got 0"),
        (-1, "got -1"),
        (2.5, "got 2.5"),
        (True, "got True"),
        ("1%", "got '1%'"),
        (float("nan"), "got nan"),
        (float("inf"), "got inf"),
    ],
)
def test_an_invalid_budget_is_refused(report, budget, message):
    with pytest.raises(ActshiftError, match=message):
        report.to_config(budget)


def test_a_report_without_sites_has_no_budget_to_spend(report):
    maps = dataclasses.replace(report, places=tuple(place for place in report.places if place.weight))
    with pytest.raises(ActshiftError, match="at least one site"):
        maps.to_config(0.5)
