"""First-order gains with their standard errors, and the best allocation of a budget by gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actshift.analysis.sections import number
from actshift.errors import ActshiftError, is_number


@dataclass(frozen=True)
class Estimate:
    """A value over all groups of batches and `without` each group in turn, for the delete-a-group jackknife.

    Source: Efron, Stein, Annals of Statistics 9 (1981).

    >>> round(Estimate(2.0, (1.9, 2.1)).error, 3)
    0.1
    """

    value: float
    without: tuple[float, ...] = ()

    @property
    def error(self) -> float | None:
        """The standard error; None for fewer than two groups."""
        n = len(self.without)
        if n < 2:
            return None
        mean = sum(self.without) / n
        return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in self.without))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference. Its error is small if new data would move both estimates alike."""
        pairs = zip(self.without, other.without, strict=True)
        return Estimate(self.value - other.value, tuple(mine - theirs for mine, theirs in pairs))

    def over(self, number: float) -> Estimate:
        """Return the estimate divided by a number."""
        return Estimate(self.value / number, tuple(value / number for value in self.without))

    @property
    def clear(self) -> bool:
        """True if the value differs from 0 by more than two standard errors; False if the error is unknown."""
        return self.error is not None and abs(self.value) > 2 * self.error

    def to_dict(self, parameters: int) -> dict[str, Any]:
        """Return the gain of a number of parameters, its error and the gain per parameter, ready for JSON."""
        return {"gain": self.value, "error": self.error, "per_parameter": self.value / parameters}

    def __str__(self) -> str:
        """Return the value to the first significant digit of its error, as in `88 ± 20`."""
        if not self.error:
            return number(self.value) + (" ± 0" if self.error == 0 else "")
        decimals = max(0, -math.floor(math.log10(self.error)))
        form = f",.{decimals}f" if decimals < 5 else ".3g"
        return f"{self.value:{form}} ± {self.error:{form if decimals < 5 else '.1g'}}"


def combined_gain(gains: Sequence[Estimate]) -> Estimate:
    """Return the gain of one unit step that several places share: the root of the sum of squares.

    >>> combined_gain([Estimate(3.0), Estimate(4.0)]).value
    5.0
    """
    columns = zip(*(gain.without for gain in gains), strict=True)
    return Estimate(math.hypot(*(gain.value for gain in gains)), tuple(math.hypot(*column) for column in columns))


@dataclass(frozen=True)
class SiteGain:
    """The gradient of the mean loss at one site of a block, or at one linear map of it (`weight`).

    `singular_values` σ_1 ≥ σ_2 ≥ … belong to G = Σ g xᵀ `[outputs, inputs]`, and `mean` is ‖Σ g‖, or None for a linear
    map. `singular_values_without` and `mean_without` leave out one group of batches each. `held_out` is, for each
    rank, the loss decrease on one group from the best step over all others, averaged over the groups. The gain exceeds
    it by the part that is due to chance. `sketched` marks a G that was too large to be summed itself.
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
        """Return √(σ_1² + … + σ_r²), the loss decrease per ε of a small step of rank r and Frobenius norm ε."""
        gain, *without = (
            sum(value * value for value in values[:rank]) ** 0.5
            for values in (self.singular_values, *self.singular_values_without)
        )
        return Estimate(gain, tuple(without))

    @property
    def vector_gain(self) -> Estimate:
        """‖Σ g‖, the loss decrease per ε of a shift by one small vector of norm ε."""
        assert self.mean is not None
        return Estimate(self.mean, self.mean_without)

    def parameters(self, rank: int) -> int:
        """Return the parameters of a step of rank r: r (inputs + outputs), which is 2dr at a site."""
        return rank * (self.inputs + self.outputs)

    def to_dict(self, ranks: Sequence[int]) -> dict[str, Any]:
        """Return all values, ready for JSON, with the gains of a vector (at a site) and of these ranks."""
        gains = {str(rank): self.gain(rank).to_dict(self.parameters(rank)) for rank in ranks}
        vector = {} if self.weight else {"vector": self.vector_gain.to_dict(self.outputs)}
        return {**asdict(self), "gains": {**vector, **gains}}


@dataclass(frozen=True)
class MethodGain:
    """The gain of one method in every block: a vector or a rank at a site, or LoRA on one linear map."""

    label: str
    parameters: int
    gain: Estimate
    weight: bool = False

    @property
    def per_parameter(self) -> Estimate:
        """The gain per trained parameter."""
        return self.gain.over(self.parameters)

    @property
    def per_1000(self) -> Estimate:
        """The gain per 1,000 trained parameters."""
        return self.per_parameter.over(1 / 1000)

    def to_dict(self) -> dict[str, Any]:
        """Return the label and the gain, ready for JSON."""
        return {"label": self.label, "parameters": self.parameters, **self.gain.to_dict(self.parameters)}


def method_gains(places: Sequence[SiteGain], ranks: Sequence[int]) -> tuple[MethodGain, ...]:
    """Return every method that applies to all `places`, with the largest gain per parameter first."""
    methods: list[MethodGain] = []
    for site in dict.fromkeys(place.site for place in places):
        hosts = [place for place in places if place.site == site]
        weight = hosts[0].weight
        if not weight:
            vector = combined_gain([host.vector_gain for host in hosts])
            methods.append(MethodGain(f"{site} vector", sum(host.outputs for host in hosts), vector))
        for rank in ranks:
            label, gain = f"{'LoRA ' * weight}{site} r={rank}", combined_gain([host.gain(rank) for host in hosts])
            methods.append(MethodGain(label, sum(host.parameters(rank) for host in hosts), gain, weight))
    return tuple(sorted(methods, key=lambda method: -method.per_parameter.value))


def parse_budget(budget: Any, model_parameters: int) -> int:
    """Return a number of parameters, or a fraction of `model_parameters` between 0 and 1, as a number of parameters.

    Raises:
        ActshiftError: The budget is neither.

    >>> parse_budget(0.01, 1000), parse_budget(250, 1000)
    (10, 250)
    """
    if is_number(budget) and 0 < budget < 1:
        return int(budget * model_parameters)
    if is_number(budget) and budget >= 1 and budget % 1 == 0:
        return int(budget)
    raise ActshiftError(f"The budget must be a whole number of parameters, or a fraction below 1; got {budget!r}.")


def allocate_ranks(places: Sequence[SiteGain], budget: float, model_parameters: int) -> list[tuple[SiteGain, int]]:
    """Return the sites to steer, each with its rank, that gain most within a budget (see `parse_budget`).

    The ranks r_p maximise Σ_p (σ_{p,1}² + … + σ_{p,r_p}²), the squared gain of one shared unit step, subject to
    Σ_p r_p · 2d ≤ budget. Ranks are added greedily by σ² per parameter. This is optimal if all ranks cost the same,
    which is true at the sites of the residual stream. No site gets a higher rank than it has singular values.

    Raises:
        ActshiftError: `places` is empty, or the budget is invalid or does not pay for rank 1 at any site.

    Source: this project, docs/method.md#gain-per-parameter.
    """
    remaining = parse_budget(budget, model_parameters)
    if not places:
        raise ActshiftError("A budget is spent on sites; run `locate` with at least one site.")
    costs = [place.parameters(1) for place in places]
    if remaining < (cheapest := min(costs)):
        least = f"{cheapest:,} parameters, {cheapest / model_parameters:.3g} of the model"
        raise ActshiftError(f"A budget of {remaining:,} parameters buys nothing: rank 1 at one site takes {least}.")
    offers = [
        (-value * value / cost, index)
        for index, (place, cost) in enumerate(zip(places, costs, strict=True))
        for value in place.singular_values
        if value > 0
    ]
    ranks = [0] * len(places)
    for _, index in sorted(offers):
        if costs[index] <= remaining:
            ranks[index] += 1
            remaining -= costs[index]
    return [(place, rank) for place, rank in zip(places, ranks, strict=True) if rank]
