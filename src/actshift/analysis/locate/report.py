"""What a location found: at every place, how much the loss would fall for one small step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actshift.adapters import LowRank
from actshift.analysis.render import Plain
from actshift.errors import ActshiftError
from actshift.tuner import Intervention, SteeringConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Estimate:
    """A value over all groups of batches, and the same `without` each group in turn: the delete-a-group jackknife.

    Source: Efron, Stein, Annals of Statistics 9 (1981).

    >>> round(Estimate(2.0, (1.9, 2.1)).error, 3)
    0.1
    """

    value: float
    without: tuple[float, ...] = ()

    @property
    def error(self) -> float | None:
        """The standard error, or None where there is one group alone."""
        n = len(self.without)
        if n < 2:
            return None
        mean = sum(self.without) / n
        return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in self.without))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference, whose error is smaller than those of its sides where data moves both alike."""
        pairs = zip(self.without, other.without, strict=True)
        return Estimate(self.value - other.value, tuple(one - two for one, two in pairs))

    def over(self, number: float) -> Estimate:
        """Return the estimate over a number."""
        return Estimate(self.value / number, tuple(value / number for value in self.without))

    @property
    def clear(self) -> bool:
        """Whether it differs from 0 by more than two standard errors; unknown is not clear."""
        return self.error is not None and abs(self.value) > 2 * self.error


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Return the gain of one unit step that is shared by several places: the root of the sum of squares.

    >>> together([Estimate(3.0), Estimate(4.0)]).value
    5.0
    """
    columns = zip(*(one.without for one in estimates), strict=True)
    return Estimate(math.hypot(*(one.value for one in estimates)), tuple(math.hypot(*column) for column in columns))


@dataclass(frozen=True)
class SiteGain:
    """A site of a block, or a linear map in it (`weight`), and the gradient there, of the mean loss over all targets.

    `singular_values` σ_1 ≥ σ_2 ≥ … are those of G = Σ g xᵀ `[outputs, inputs]`; `mean` is ‖Σ g‖, None at a weight.
    `singular_values_without` and `mean_without` leave out one group of batches each. `held_out` is, by rank, what the
    best step over all groups but one takes off the loss of that one, the mean over groups: it falls short of the gain
    by what that owes to chance. `sketched` says that G was too large to be summed itself.
    """

    site: str
    layer: int
    module: str
    inputs: int
    outputs: int
    weight: bool
    sketched: bool
    singular_values: tuple[float, ...]
    mean: float | None
    singular_values_without: tuple[tuple[float, ...], ...]
    mean_without: tuple[float, ...]
    held_out: tuple[float, ...] = ()

    def gain(self, rank: int) -> Estimate:
        """Return √(σ_1² + … + σ_r²): what a small step of rank r and Frobenius norm ε takes off the loss, over ε."""
        return Estimate(
            _norm(self.singular_values[:rank]), tuple(_norm(v[:rank]) for v in self.singular_values_without)
        )

    @property
    def vector_gain(self) -> Estimate:
        """‖Σ g‖: what a shift by one small vector of norm ε takes off the loss, over ε."""
        assert self.mean is not None
        return Estimate(self.mean, self.mean_without)

    def parameters(self, rank: int) -> int:
        """Return what rank r costs here: r (inputs + outputs), which is 2dr at a site."""
        return rank * (self.inputs + self.outputs)


@dataclass(frozen=True)
class MethodGain:
    """One way to spend parameters in every block: at a site by a vector or by rank r, or by LoRA on a kind of map."""

    label: str
    parameters: int
    gain: Estimate

    @property
    def per_parameter(self) -> Estimate:
        """The gain over the parameters that it takes."""
        return self.gain.over(self.parameters)


@dataclass(frozen=True)
class LocateReport(Plain):
    """Where a small change lowers the loss most, to first order; it prints as tables, draws itself, and goes to JSON.

    `loss` is the mean over all targets in nats, `rank` the largest rank that was looked at, `parameters` the model's,
    `groups` of batches those that the ± is over, `left_out` the sites that the model does not have, with the reason.
    """

    model: str
    parameters: int
    rank: int
    loss: float
    targets: int
    batches: int
    groups: int
    places: tuple[SiteGain, ...]
    left_out: tuple[str, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that tables and JSON speak of: the powers of two up to the largest, and that one."""
        powers = [2**power for power in range(self.rank.bit_length()) if 2**power < self.rank]
        return (*powers, self.rank)

    @property
    def held_out(self) -> float | None:
        """The part of the gains at the largest rank that holds on batches left out; None where there is one group."""
        found = [place.held_out[-1] for place in self.places if place.held_out]
        return sum(found) / sum(place.gain(self.rank).value for place in self.places) if found else None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that can be steered, in their order."""
        return tuple(dict.fromkeys(place.site for place in self.places if not place.weight))

    def at(self, site: str) -> tuple[SiteGain, ...]:
        """Return the places of a site, or of a kind of map, by layer."""
        return tuple(place for place in self.places if place.site == site)

    @property
    def methods(self) -> tuple[MethodGain, ...]:
        """The ways to spend parameters in all blocks that were looked at, the largest gain per parameter first."""
        methods = []
        for site in dict.fromkeys(place.site for place in self.places):
            places = self.at(site)
            if places[0].weight:
                methods += [_method(f"LoRA {site} r={rank}", places, rank) for rank in self.ranks]
            else:
                vectors = together([place.vector_gain for place in places])
                methods.append(MethodGain(f"{site} vector", sum(place.outputs for place in places), vectors))
                methods += [_method(f"{site} r={rank}", places, rank) for rank in self.ranks]
        return tuple(sorted(methods, key=lambda method: -method.per_parameter.value))

    def to_config(self, budget: float, activation: str | None = "silu", **config: Any) -> SteeringConfig:
        """Return a SteeringConfig that spends `budget` where the first-order gain is greatest; see `spend`.

        `budget` is a share of the model's parameters below 1, or a number of parameters. `activation` is that of
        every adapter, and further fields are SteeringConfig's.

        Raises ActshiftError for a budget that is no such number, or too small for one rank anywhere.

        >>> report.to_config(budget=0.0004)  # doctest: +SKIP
        """

        return spend(self, budget, activation, **config)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON, with the gains by rank."""
        values = {name: value for name, value in asdict(self).items() if name != "places"}
        places = [{**asdict(place), "gains": _gains(place, self.ranks)} for place in self.places]
        methods = [
            {"label": method.label, "parameters": method.parameters, **_figures(method.gain, method.parameters)}
            for method in self.methods
        ]
        return {**values, "places": places, "methods": methods}

    def figure(self) -> Figure:
        """Draw layers × places at the largest rank, darker where the gain is greater (needs matplotlib)."""
        from actshift.analysis.locate.rendering import heat_map

        return heat_map(self)

    def __rich__(self) -> RenderableType:
        """Return the tables for a terminal."""
        from actshift.analysis.locate.rendering import tables

        return tables(self)


def _norm(values: Sequence[float]) -> float:
    return sum(value * value for value in values) ** 0.5


def _method(label: str, places: Sequence[SiteGain], rank: int) -> MethodGain:
    return MethodGain(
        label, sum(place.parameters(rank) for place in places), together([one.gain(rank) for one in places])
    )


def _gains(place: SiteGain, ranks: Sequence[int]) -> dict[str, Any]:
    gains = {str(rank): _figures(place.gain(rank), place.parameters(rank)) for rank in ranks}
    return gains if place.weight else {"vector": _figures(place.vector_gain, place.outputs), **gains}


def _figures(gain: Estimate, parameters: int) -> dict[str, Any]:
    return {"gain": gain.value, "error": gain.error, "per_parameter": gain.value / parameters}


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


def _offers(places: Sequence[SiteGain]) -> list[tuple[float, int]]:
    """Every rank of every place that gains anything, by σ² per parameter, as (its value, the place's index)."""
    offers = [
        (value * value / place.parameters(1), index)
        for index, place in enumerate(places)
        for value in place.singular_values
        if value > 0
    ]
    return sorted(offers, key=lambda offer: (-offer[0], offer[1]))


def _interventions(chosen: Sequence[tuple[SiteGain, int]], activation: Any, init: Any) -> list[Intervention]:
    layers: dict[tuple[str, int], list[int]] = {}
    for place, rank in chosen:
        layers.setdefault((place.site, rank), []).append(place.layer)
    return [
        Intervention(LowRank(rank=rank, activation=activation, init=init), site=site, layers=tuple(sorted(of)))
        for (site, rank), of in sorted(layers.items(), key=lambda item: (item[0][0], -item[0][1]))
    ]
