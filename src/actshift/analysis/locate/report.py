"""What a location found: at every place, how much the loss would fall for one small step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actshift.analysis.locate.estimate import Estimate, together
from actshift.analysis.plain import Plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from actshift.tuner import SteeringConfig


@dataclass(frozen=True)
class Place:
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
class Method:
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
    places: tuple[Place, ...]
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

    def at(self, site: str) -> tuple[Place, ...]:
        """Return the places of a site, or of a kind of map, by layer."""
        return tuple(place for place in self.places if place.site == site)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The ways to spend parameters in all blocks that were looked at, the largest gain per parameter first."""
        methods = []
        for site in dict.fromkeys(place.site for place in self.places):
            places = self.at(site)
            if places[0].weight:
                methods += [_method(f"LoRA {site} r={rank}", places, rank) for rank in self.ranks]
            else:
                vectors = together([place.vector_gain for place in places])
                methods.append(Method(f"{site} vector", sum(place.outputs for place in places), vectors))
                methods += [_method(f"{site} r={rank}", places, rank) for rank in self.ranks]
        return tuple(sorted(methods, key=lambda method: -method.per_parameter.value))

    def to_config(self, budget: float, activation: str | None = "silu", **config: Any) -> SteeringConfig:
        """Return a SteeringConfig that spends `budget` where the first-order gain is greatest; see `spend`.

        `budget` is a share of the model's parameters below 1, or a number of parameters. `activation` is that of
        every adapter, and further fields are SteeringConfig's.

        Raises ActshiftError for a budget that is no such number, or too small for one rank anywhere.

        >>> report.to_config(budget=0.0004)  # doctest: +SKIP
        """
        from actshift.analysis.locate.budget import spend

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
        from actshift.analysis.locate.picture import heat_map

        return heat_map(self)

    def __rich__(self) -> RenderableType:
        """Return the tables for a terminal."""
        from actshift.analysis.locate.table import tables

        return tables(self)


def _norm(values: Sequence[float]) -> float:
    return sum(value * value for value in values) ** 0.5


def _method(label: str, places: Sequence[Place], rank: int) -> Method:
    return Method(label, sum(place.parameters(rank) for place in places), together([one.gain(rank) for one in places]))


def _gains(place: Place, ranks: Sequence[int]) -> dict[str, Any]:
    gains = {str(rank): _figures(place.gain(rank), place.parameters(rank)) for rank in ranks}
    return gains if place.weight else {"vector": _figures(place.vector_gain, place.outputs), **gains}


def _figures(gain: Estimate, parameters: int) -> dict[str, Any]:
    return {"gain": gain.value, "error": gain.error, "per_parameter": gain.value / parameters}
