"""Allocate a budget of parameters to sites by first-order gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actshift.analysis.locate.gains import SiteGain
from actshift.errors import ActshiftError


def parse_budget(budget: Any, model_parameters: int) -> int:
    """Return a budget as a number of parameters.

    Args:
        budget: A number of parameters, or a fraction of `model_parameters` between 0 and 1.
        model_parameters: Number of parameters of the model.

    Raises:
        ActshiftError: The budget is neither.

    >>> parse_budget(0.01, 1000), parse_budget(250, 1000)
    (10, 250)
    """
    is_number = not isinstance(budget, bool) and isinstance(budget, int | float)
    if is_number and 0 < budget < 1:
        return int(budget * model_parameters)
    if is_number and budget >= 1 and budget % 1 == 0:
        return int(budget)
    raise ActshiftError(
        f"The budget must be a fraction of the model's parameters between 0 and 1, or a whole number of parameters; "
        f"got {budget!r}."
    )


def allocate_ranks(places: Sequence[SiteGain], budget: int, model_parameters: int) -> list[tuple[SiteGain, int]]:
    """Return the sites to steer, each with its rank, that gain most within a budget.

    The ranks r_p maximise Σ_p (σ_{p,1}² + … + σ_{p,r_p}²), the squared gain of one shared unit step, subject to
    Σ_p r_p · 2d ≤ budget. Ranks are added greedily by σ² per parameter. This is optimal if all ranks cost the same,
    which is true at the sites of the residual stream. No site gets a higher rank than it has singular values.

    Args:
        places: The sites, without linear maps.
        budget: Number of parameters to spend.
        model_parameters: Number of parameters of the model, for the error message.

    Raises:
        ActshiftError: `places` is empty, or the budget does not pay for rank 1 at any site.

    Source: this project, docs/method.md#gain-per-parameter.
    """
    if not places:
        raise ActshiftError(
            "The report has only linear maps, and a budget is spent on sites; run `locate` with at least one site."
        )
    cheapest = min(place.parameters(1) for place in places)
    if budget < cheapest:
        raise ActshiftError(
            f"A budget of {budget:,} parameters buys nothing: rank 1 at one site takes {cheapest:,} parameters, "
            f"{cheapest / model_parameters:.3g} of the model. Use at least that many."
        )
    offers = [
        (value * value / place.parameters(1), index)
        for index, place in enumerate(places)
        for value in place.singular_values
        if value > 0
    ]
    ranks = [0] * len(places)
    for _, index in sorted(offers, key=lambda offer: (-offer[0], offer[1])):
        cost = places[index].parameters(1)
        if cost <= budget:
            ranks[index] += 1
            budget -= cost
    return [(place, rank) for place, rank in zip(places, ranks, strict=True) if rank]
