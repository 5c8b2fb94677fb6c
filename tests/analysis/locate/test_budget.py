from __future__ import annotations

import dataclasses
import itertools

import pytest

from actshift import ActshiftError, SteeringConfig, attach
from tests.gradients.parity import model_of


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
