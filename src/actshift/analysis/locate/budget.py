"""Spend a number of parameters where the loss falls most, to first order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actshift.adapters import LowRank
from actshift.analysis.locate.report import LocateReport, Place
from actshift.errors import ActshiftError
from actshift.tuner import Intervention, SteeringConfig


def spend(report: LocateReport, budget: float, activation: str | None = "silu", **config: Any) -> SteeringConfig:
    """Return the config of uneven sites, layers and ranks that a budget buys.

    Chosen are ranks r_p ≥ 0 at the places p that can be steered, so that Σ_p (σ_{p,1}² + … + σ_{p,r_p}²) is greatest
    within Σ_p r_p · 2d ≤ budget: the square of what one unit step, shared by all of them, takes off the loss. Ranks are
    bought one by one by σ² per parameter, the greatest first, which is the optimum where all cost alike, as the sites
    of the residual stream do. No place gets more than the report's rank.

    Raises ActshiftError as `LocateReport.to_config` does.
    Source: [ours], METHOD §3.
    """
    left = parameters_of(budget, report.parameters)
    places = [place for place in report.places if not place.weight]
    if not places:
        raise ActshiftError("The report has linear maps alone, and a budget is spent on sites; locate some.")
    cheapest = min(place.parameters(1) for place in places)
    if left < cheapest:
        raise ActshiftError(
            f"A budget of {left:,} parameters buys nothing: rank 1 at one place takes {cheapest:,}, "
            f"which is {cheapest / report.parameters:.3g} of the model; give at least that."
        )
    ranks = dict.fromkeys(range(len(places)), 0)
    for _, index in _offers(places):
        cost = places[index].parameters(1)
        if cost <= left:
            ranks[index] += 1
            left -= cost
    chosen = [(places[index], rank) for index, rank in ranks.items() if rank]
    return SteeringConfig(interventions=_interventions(chosen, activation, config.pop("init", "default")), **config)


def parameters_of(budget: float, whole: int) -> int:
    """Return the number of parameters that a budget is, given as such or as a share of `whole`.

    >>> parameters_of(0.01, 1000), parameters_of(250, 1000)
    (10, 250)
    """
    number = not isinstance(budget, bool) and isinstance(budget, int | float)
    if number and 0 < budget < 1:
        return int(budget * whole)
    if number and budget >= 1 and budget % 1 == 0:
        return int(budget)
    raise ActshiftError(
        f"A budget is a share of the model's parameters, between 0 and 1, or a whole number of them; got {budget!r}."
    )


def _offers(places: Sequence[Place]) -> list[tuple[float, int]]:
    """Every rank of every place that gains anything, by σ² per parameter, as (its value, the place's index)."""
    offers = [
        (value * value / place.parameters(1), index)
        for index, place in enumerate(places)
        for value in place.singular_values
        if value > 0
    ]
    return sorted(offers, key=lambda offer: (-offer[0], offer[1]))


def _interventions(chosen: Sequence[tuple[Place, int]], activation: Any, init: Any) -> list[Intervention]:
    layers: dict[tuple[str, int], list[int]] = {}
    for place, rank in chosen:
        layers.setdefault((place.site, rank), []).append(place.layer)
    return [
        Intervention(LowRank(rank=rank, activation=activation, init=init), site=site, layers=tuple(sorted(of)))
        for (site, rank), of in sorted(layers.items(), key=lambda item: (item[0][0], -item[0][1]))
    ]
