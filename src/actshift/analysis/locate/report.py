"""The result of `locate`, and the sections that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from actshift.adapters.low_rank import Activation, LowRank
from actshift.analysis.figures import panels
from actshift.analysis.locate.gains import MethodGain, SiteGain, allocate_ranks, combined_gain, method_gains
from actshift.analysis.locate.plots import HeatMap, plot_methods
from actshift.analysis.sections import Section, SectionReport, listed, percent, table
from actshift.tuner import Intervention, SteeringConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH_HELD_OUT = 0.8  # the fraction of the gains that should hold on other batches
WORTHWHILE = 1.02  # an uneven allocation must gain 2 % more than an even one to be recommended


@dataclass(frozen=True)
class LocateReport(SectionReport):
    """First-order gains of small changes, by site, block and rank.

    `parameters` counts the model's parameters, `rank` is the largest rank that was measured, and `loss` the mean over
    all targets in nats. The standard errors are over `groups` of batches. `left_out` has a reason for each site that
    the model does not have.
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
        """The ranks in tables and JSON: the powers of two below the largest rank, and the largest rank."""
        powers = [2**power for power in range(self.rank.bit_length()) if 2**power < self.rank]
        return (*powers, self.rank)

    @property
    def held_out(self) -> float | None:
        """The fraction of the gains at the largest rank that remains on other batches; None for a single group."""
        gains = [place.held_out[-1] for place in self.places if place.held_out]
        return sum(gains) / sum(place.gain(self.rank).value for place in self.places) if gains else None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that can be steered, in order."""
        return tuple(dict.fromkeys(place.site for place in self.steerable))

    def at(self, site: str) -> tuple[SiteGain, ...]:
        """Return the gains at one site, or at one linear map, by block."""
        return tuple(place for place in self.places if place.site == site)

    @property
    def methods(self) -> tuple[MethodGain, ...]:
        """The methods in all measured blocks, with the largest gain per parameter first."""
        return method_gains(self.places, self.ranks)

    def to_config(self, budget: float, activation: Activation | None = "silu", **config: Any) -> SteeringConfig:
        """Return a config that allocates a budget of parameters by first-order gain.

        Args:
            budget: A number of parameters, or a fraction of the model's parameters below 1.
            activation: Activation of every adapter; None for a linear one.
            config: Further fields of `SteeringConfig`. `init` is the initialisation of every adapter.

        Raises:
            ActshiftError: The budget is not such a number, or does not pay for rank 1 at any site.

        Source: this project, docs/method.md#gain-per-parameter.

        >>> report.to_config(budget=0.0004)  # doctest: +SKIP
        """
        init = config.pop("init", "default")
        layers: dict[tuple[str, int], list[int]] = {}
        for place, rank in allocate_ranks(self.steerable, budget, self.parameters):
            layers.setdefault((place.site, rank), []).append(place.layer)
        interventions = [
            Intervention(LowRank(rank=rank, activation=activation, init=init), site=site, layers=tuple(sorted(chosen)))
            for (site, rank), chosen in sorted(layers.items(), key=lambda item: (item[0][0], -item[0][1]))
        ]
        return SteeringConfig(interventions=interventions, **config)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON, with the gains by rank."""
        values = asdict(self)
        del values["places"]
        places = [place.to_dict(self.ranks) for place in self.places]
        return {**values, "places": places, "methods": [method.to_dict() for method in self.methods]}

    @property
    def sections(self) -> tuple[Section, ...]:
        """Where to steer, where to put LoRA, and the gain per parameter."""
        maps = self._heat_maps
        lora_notes = _notes(self) if len(maps) == 1 else ""  # the section of the sites has the notes
        sections = (_lora_section(self, m, lora_notes) if m.weight else _steering_section(self, m) for m in maps)
        return (*sections, _methods_section(self))

    def figure(self) -> Figure:
        """Return heat maps of the sites and of the linear maps at the largest rank."""
        maps = self._heat_maps
        widths = [len(heat_map.names) for heat_map in maps]
        size = 1 + 0.75 * sum(widths) + 1.2 * len(maps), max(heat_map.height for heat_map in maps)
        figure = panels(*size, *(heat_map.plot for heat_map in maps), ratios=widths)
        for axes, heat_map in zip(figure.axes, maps, strict=True):
            axes.set_title("LoRA on a linear map" if heat_map.weight else "Steering", fontsize=9, loc="left")
        figure.suptitle(f"First-order decrease of the loss per unit step of rank {self.rank}", x=0.02, ha="left")
        return figure

    @property
    def _heat_maps(self) -> list[HeatMap]:
        """The maps of the sites and of the linear maps, if any."""
        maps = [place for place in self.places if place.weight]
        return [HeatMap(places, self.rank) for places in (self.steerable, maps) if places]

    @property
    def steerable(self) -> list[SiteGain]:
        """The gains at sites, without linear maps."""
        return [place for place in self.places if not place.weight]


def _notes(report: LocateReport) -> str:
    notes = [
        f"{report.targets:,} targets in {report.batches} batches, mean loss {report.loss:.4f} nats.",
        "A gain is the first-order decrease of the loss per ε, for a step of Frobenius norm ε.",
        f"± is the standard error over {report.groups} groups of batches."
        if report.groups > 1
        else "One batch gives no standard error; use more batches.",
    ]
    if report.held_out is not None:
        chance = "." if report.held_out >= ENOUGH_HELD_OUT else "; the rest is chance: give more rows."
        notes.append(f"{percent(max(report.held_out, 0))} of the gains hold on other batches{chance}")
    if any(place.sketched for place in report.places):
        notes.append("Gradients above 512 × 512 are sketched.")
    return " ".join([*notes, *(f"Left out: {reason}" for reason in report.left_out)])


def _steering_section(report: LocateReport, heat_map: HeatMap) -> Section:
    advice = f"Start at {heat_map.best_place}."
    if report.held_out is not None and report.held_out < ENOUGH_HELD_OUT:
        held_out = percent(max(report.held_out, 0))
        advice = f"Give more rows, because only {held_out} of the gains hold on other batches. Then start at "
        advice += f"{heat_map.best_place}."
    return _heat_map_section(
        heat_map,
        key="where",
        title="Where to steer",
        how_to_read=f"Each cell is the gain of a step of rank {report.rank} and norm 1, in nats; a star marks gains "
        "that match the largest one within the noise.",
        advice=f"{advice} {_allocation_advice(report)}",
        note=f"Activations differ in size between sites, so compare within a column rather than across. "
        f"{_notes(report)}",
    )


def _allocation_advice(report: LocateReport) -> str:
    """Compare an even spread over the blocks at one site with the best allocation of as many parameters."""
    even = report.at("post_block") or report.at(report.sites[0])
    budget = sum(place.parameters(report.rank) for place in even)
    allocation = allocate_ranks(report.steerable, budget, report.parameters)
    best, spread = _total(allocation), _total([(place, report.rank) for place in even])
    cost = f"the {budget:,} parameters of {even[0].site} rank {report.rank} in every block"
    if best < WORTHWHILE * spread or not spread:
        return f"Spread them evenly: {cost} gain no more in any other allocation."
    spent = Counter[str]()
    for place, rank in allocation:
        spent[place.site] += place.parameters(rank)
    shares = [f"{percent(spent[site] / spent.total())} at {site}" for site in report.sites if site in spent]
    return (
        f"Spent by `actshift locate --rank {report.rank} --budget {budget}`, {cost} gain {best / spread:.2f} times as "
        f"much, to first order: {listed(shares)}."
    )


def _lora_section(report: LocateReport, heat_map: HeatMap, notes: str) -> Section:
    totals = (_total([(place, report.rank) for place in report.at(name)]) for name in heat_map.names)
    squares = {label: total**2 for label, total in zip(heat_map.labels, totals, strict=True)}
    targets = sorted(squares, key=lambda label: -squares[label])
    all_squares, covered_by = sum(squares.values()), list(accumulate(squares[label] for label in targets))
    count = next(number for number, covered in enumerate(covered_by, 1) if covered >= all_squares / 2)
    share = percent(covered_by[count - 1] / all_squares if all_squares else 0)
    return _heat_map_section(
        heat_map,
        key="maps",
        title="Where to put LoRA",
        how_to_read=f"Each cell is the gain of LoRA of rank {report.rank} on one linear map, for a step of norm 1 in "
        "its weights.",
        advice=f"If you train LoRA, target {listed(targets[:count])} first, with {share} of the squared gain of all "
        f"maps. The best one is {heat_map.best_place}.",
        note=notes,
    )


def _heat_map_section(heat_map: HeatMap, **words: Any) -> Section:
    columns = len(heat_map.names)
    return Section(
        **words,
        columns=("block", *heat_map.labels),
        rows=heat_map.rows(),
        shades=heat_map.shades(),
        alt=f"Heat map with {columns} columns and {len(heat_map.layers)} blocks; the largest gain is at "
        f"{heat_map.best_place}.",
        plot=heat_map.plot,
        size=(0.9 + max(0.55, 3.0 / columns) * columns, heat_map.height),
    )


def _methods_section(report: LocateReport) -> Section:
    methods, drawn = report.methods, report.methods[:14]
    return Section(
        key="gain",
        title="Gain per parameter",
        how_to_read="Each line is a method in every block, with its gain per 1,000 parameters and one standard error.",
        **table(
            methods,
            ("in every block", lambda method: method.label),
            ("parameters", lambda method: f"{method.parameters:,}"),
            ("share", lambda method: f"{method.parameters / report.parameters:.3%}"),
            ("gain", lambda method: str(method.gain)),
            ("gain per 1,000", lambda method: str(method.per_1000)),
        ),
        advice=_method_advice(methods),
        note="Low ranks lead, because each further rank costs the same and gains less.",
        alt=f"Bars of the {len(drawn)} methods with the largest gain per parameter, from {drawn[0].label} at "
        f"{drawn[0].per_1000} to {drawn[-1].label} at {drawn[-1].per_1000}.",
        plot=lambda axes: plot_methods(axes, drawn),
        size=(4.9, 0.9 + 0.25 * len(drawn)),
        preview=12,
    )


def _method_advice(methods: Sequence[MethodGain]) -> str:
    steering, lora = ([method for method in methods if method.weight is weight] for weight in (False, True))
    if not steering or not lora:
        return f"If parameters are few, train {methods[0].label}, which gains {methods[0].per_1000} per 1,000."
    ahead, behind = sorted((steering[0], lora[0]), key=lambda method: -method.per_parameter.value)
    pair = f"{ahead.per_1000} against {behind.per_1000} per 1,000 parameters"
    difference = ahead.per_parameter.minus(behind.per_parameter)
    if difference.error is None:
        return f"Give more rows: {ahead.label} and {behind.label} gain {pair}, but one batch gives no standard error."
    if not difference.clear:
        return (
            f"Choose between {ahead.label} and {behind.label} by other criteria, such as merging into the weights: "
            f"within the noise they gain alike, {pair}."
        )
    ratio = ahead.per_parameter.value / (behind.per_parameter.value or float("nan"))
    return f"If parameters are few, prefer {ahead.label} to {behind.label}: it gains {ratio:.1f} times as much, {pair}."


def _total(allocation: Sequence[tuple[SiteGain, int]]) -> float:
    return combined_gain([place.gain(rank) for place, rank in allocation]).value
