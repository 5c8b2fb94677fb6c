"""What `locate` found, as sections: where to steer, what LoRA would gain on each map, and what a parameter buys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from actshift.analysis.drawing import new_figure
from actshift.analysis.locate import Estimate, LocateReport, Method, Place
from actshift.analysis.locate.estimate import together
from actshift.analysis.locate.picture import BARS, heat, height, maps, per_parameter
from actshift.analysis.locate.table import ENOUGH, notes
from actshift.analysis.report.section import Section, blocks, listed, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LITTLE = 1.02
"""A gain of less than 2 % over an even spread is not worth a config of its own."""


def sections(report: LocateReport) -> Iterator[Section]:
    """Give the sections that a location fills."""
    yield _where(report)
    if maps(report):
        yield _weights(report)
    yield _methods(report)


def _where(report: LocateReport) -> Section:
    places = [place for place in report.places if not place.weight]
    best = max(places, key=lambda place: place.gain(report.rank).value)
    return Section(
        key="where",
        title="Where to steer",
        reading=f"Each cell is what a step of rank {report.rank} and norm 1 there takes off the loss, to first order "
        "and in nats: the stronger the colour the more, a star is as good as the best within the noise, and since "
        "activations differ in size from site to site, a column is safer to compare down than across.",
        advice=f"{_first(report)} {_named(best)}, which gains {_figure(best.gain(report.rank))}; {_spent(report)}.",
        alt=f"Heat map of {len(report.sites)} sites by {len({p.layer for p in places})} blocks; the greatest gain is "
        f"{_figure(best.gain(report.rank))} {_named(best)}.",
        columns=("block", *report.sites),
        rows=_grid(report, report.sites),
        draw=lambda: _heat(report, report.sites),
        note=" ".join(notes(report)),
    )


def _weights(report: LocateReport) -> Section:
    names = maps(report)
    squares = {name: together([place.gain(report.rank) for place in report.at(name)]).value ** 2 for name in names}
    first = max(names, key=squares.__getitem__)
    place = max(report.at(first), key=lambda one: one.gain(report.rank).value)
    total = sum(squares.values()) or 1.0
    ordered = sorted(names, key=lambda name: -squares[name])
    half = next(n for n in range(1, len(names) + 1) if sum(squares[one] for one in ordered[:n]) >= total / 2)
    return Section(
        key="maps",
        title="Where to put LoRA",
        reading=f"The same for LoRA of rank {report.rank} on each linear map of a block: what a step of norm 1 in that "
        "map's weights takes off the loss, to first order.",
        advice=f"If you train LoRA, target {listed(map(_short, ordered[:half]))} first, with "
        f"{percent(sum(squares[one] for one in ordered[:half]) / total)} of the squared gain of all {len(names)} maps; "
        f"the greatest gain is {_named(place)} ({_figure(place.gain(report.rank))}).",
        alt=f"Heat map of {len(names)} linear maps by {len(report.at(first))} blocks; the greatest gain is "
        f"{_figure(place.gain(report.rank))} {_named(place)}.",
        columns=("block", *map(_short, names)),
        rows=_grid(report, names),
        draw=lambda: _heat(report, names),
    )


def _methods(report: LocateReport) -> Section:
    shown = report.methods[:BARS]
    return Section(
        key="gain",
        title="What a parameter buys",
        reading="Each bar is the first-order gain of one method in every block per 1,000 parameters that it takes, "
        "with one standard error; low ranks lead, as each further rank adds less and costs the same.",
        advice=_compared(report),
        alt=f"Bars of the {len(shown)} methods with the greatest gain per parameter, from {shown[0].label} at "
        f"{_figure(_per_1000(shown[0]))} to {shown[-1].label} at {_figure(_per_1000(shown[-1]))}.",
        columns=("in every block", "parameters", "gain", "gain per 1,000"),
        rows=tuple(
            (one.label, f"{one.parameters:,}", _figure(one.gain), _figure(_per_1000(one))) for one in report.methods
        ),
        draw=lambda: per_parameter(report),
    )


def _first(report: LocateReport) -> str:
    if report.held_out is None or report.held_out >= ENOUGH:
        return "Start"
    return f"Give more rows, as {percent(max(report.held_out, 0))} of the gains hold on batches left out, then start"


def _spent(report: LocateReport) -> str:
    """Say what the parameters of an even spread after every block would gain if they were spent freely."""
    even = report.at("post_block") or report.at(report.sites[0])
    budget = sum(place.parameters(report.rank) for place in even)
    found = {(place.site, place.layer): place for place in report.places}
    bought = [
        (found[one.site, layer], getattr(one.adapter, "rank", 0))
        for one in report.to_config(budget).all_interventions
        for layer in one.layers or ()
    ]
    ratio = _together(bought) / _together([(place, report.rank) for place in even])
    cost = f"the {budget:,} parameters of {even[0].site} rank {report.rank} in every block"
    if ratio < LITTLE:
        return f"{cost} gain no more however else they are spent, so spread them evenly"
    sites = {site: sum(p.parameters(rank) for p, rank in bought if p.site == site) for site in report.sites}
    shares = listed(f"{percent(spent / sum(sites.values()))} at {site}" for site, spent in sites.items() if spent)
    return (
        f"{cost} gain {ratio:.2f} times as much, to first order, if spent as `actshift locate --rank {report.rank} "
        f"--budget {budget}` does: "
        f"{shares}"
    )


def _compared(report: LocateReport) -> str:
    steering = [one for one in report.methods if not one.label.startswith("LoRA")]
    lora = [one for one in report.methods if one.label.startswith("LoRA")]
    best = steering[0]
    if not lora:
        return f"For the fewest parameters train {best.label}, with {_figure(_per_1000(best))} per 1,000 of them."
    one, other = best.per_parameter, lora[0].per_parameter
    pair = f"{_figure(_per_1000(best))} against {_figure(_per_1000(lora[0]))} per 1,000 parameters"
    if one.error is None:
        return f"Give more rows: {best.label} and {lora[0].label} have {pair}, and one batch does not tell the noise."
    if not one.minus(other).clear:
        return (
            f"Choose between {best.label} and {lora[0].label} by other things than this, such as whether the result "
            f"must merge into the weights: they gain alike within the noise, {pair}."
        )
    ahead, behind = (best, lora[0]) if one.value > other.value else (lora[0], best)
    ratio = ahead.per_parameter.value / behind.per_parameter.value
    return (
        f"Prefer {ahead.label} to {behind.label} where parameters are few: it gains {ratio:.1f} times as much, {pair}."
    )


def _heat(report: LocateReport, names: Sequence[str]) -> Figure:
    figure = new_figure(0.9 + max(0.55, 3.0 / len(names)) * len(names), height(report))
    heat(figure.subplots(), report, names)
    return figure


def _grid(report: LocateReport, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    found = {(place.layer, place.site): _figure(place.gain(report.rank)) for place in report.places}
    layers = sorted({place.layer for name in names for place in report.at(name)})
    return tuple((str(layer), *(found.get((layer, name), "–") for name in names)) for layer in layers)


def _together(spent: Sequence[tuple[Place, int]]) -> float:
    return together([place.gain(rank) for place, rank in spent]).value or 1.0


def _named(place: Place) -> str:
    return f"at {_short(place.site)} of {blocks([place.layer])}"


def _short(site: str) -> str:
    return site.rpartition(".")[2]


def _per_1000(method: Method) -> Estimate:
    return method.per_parameter.over(1 / 1000)


def _figure(one: Estimate) -> str:
    return f"{one.value:.3g}" + (f" ± {one.error:.1g}" if one.error is not None else "")
