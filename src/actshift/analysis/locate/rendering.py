"""What `locate` found, as sections: where to steer, what LoRA would gain on each map, and what a parameter buys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from actshift.analysis.locate.report import Estimate, LocateReport, MethodGain, SiteGain, together
from actshift.analysis.render import (
    ELSEWHERE,
    INK,
    ON_COLOUR,
    POST_BLOCK,
    WEIGHTS,
    Section,
    blocks,
    finish,
    listed,
    new_figure,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table


PER = 1000
"""Parameters that the gain per parameter is told for."""
ENOUGH = 0.8
"""The part of the gains that should hold on other batches."""
SHOWN = 12
"""How many of the methods are shown."""


def tables(report: LocateReport) -> Group:
    """Return the tables for a terminal, with what one must know to read them."""
    from rich.console import Group
    from rich.text import Text

    sites = [[place for place in report.places if place.site == site] for site in report.sites]
    weights = [report.at(name) for name in dict.fromkeys(place.site for place in report.places if place.weight)]
    parts: list[Table | Text] = []
    if sites:
        parts.append(_heat(report, sites, f"First-order gain of one unit step, rank {report.rank}"))
    if weights:
        parts.append(_heat(report, weights, f"The same by LoRA on the linear maps, rank {report.rank}", spread=False))
    return Group(*parts, _methods(report), *(Text(line) for line in notes(report)))


def notes(report: LocateReport) -> list[str]:
    """Return what one must know to read the tables, a sentence or two each."""
    lines = [
        f"{report.targets:,} targets in {report.batches} batches, mean loss {report.loss:.4f} nats. A gain is what a "
        "step of Frobenius norm ε takes off the loss, over ε. "
        + (
            f"± is the standard error over {report.groups} groups of batches; what is as good as a table's best, "
            "within two errors of the difference, has a star."
            if report.groups > 1
            else "One batch gives no spread; give more."
        )
    ]
    if report.held_out is not None:
        lines.append(
            f"{max(report.held_out, 0):.0%} of the gains hold on batches that the steps were not made from"
            + ("; the rest is chance: give more rows." if report.held_out < ENOUGH else ".")
        )
    if any(place.sketched for place in report.places):
        lines.append("Gradients above 512 × 512 are sketched.")
    return [*lines, *(f"Left out: {reason}" for reason in report.left_out)]


def _heat(report: LocateReport, columns: Sequence[Sequence[SiteGain]], title: str, spread: bool = True) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    gains = {id(place): place.gain(report.rank) for column in columns for place in column}
    best = max(gains.values(), key=lambda gain: gain.value)
    headings = [Column(_heading(column[0].site, columns), justify="right", no_wrap=True) for column in columns]
    table = Table(Column("layer", justify="right"), *headings, title=title, title_justify="left", box=None)
    for layer in sorted({place.layer for column in columns for place in column}):
        line = []
        for column in columns:
            found = [gains[id(place)] for place in column if place.layer == layer]
            line.append(_cell(found[0], best, spread) if found else Text("–"))
        table.add_row(str(layer), *line)
    return table


def _heading(site: str, columns: Sequence[Sequence[SiteGain]]) -> str:
    """The last word of a map's name, where it is enough to tell the maps apart."""
    short = site.rpartition(".")[2]
    return short if sum(column[0].site.rpartition(".")[2] == short for column in columns) == 1 else site


def _cell(gain: Estimate, best: Estimate, spread: bool) -> object:
    from rich.text import Text

    level = gain.value / best.value if best.value else 0.0
    star = "*" if gain.error is not None and not best.minus(gain).clear else " "
    text = (_figure(gain) if spread else f"{gain.value:.3g}") + star
    dark, light = (round(255 - level * (255 - end)) for end in (30, 160))
    return Text(
        f" {text}", style=f"{'white' if level > 0.6 else 'black'} on rgb({dark},{light},{255 - round(40 * level)})"
    )


def _methods(report: LocateReport) -> Table:
    from rich.table import Column, Table

    methods = report.methods
    table = Table(
        Column("in every block", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in ("parameters", "share", "gain", f"per {PER:,}")),
        title=f"Gain per parameter, the best {min(SHOWN, len(methods))} of {len(methods)}",
        title_justify="left",
        box=None,
    )
    for method in methods[:SHOWN]:
        table.add_row(
            method.label,
            f"{method.parameters:,}",
            f"{method.parameters / report.parameters:.3%}",
            _figure(method.gain),
            _figure(method.per_parameter.over(1 / PER)),
        )
    return table


def _figure(one: Estimate) -> str:
    return f"{one.value:.3g}" + (f" ±{one.error:.1g}" if one.error is not None else "")


BARS = 14
WRITTEN_ROWS = 48
"""Up to this many blocks every cell says its gain; above it they are too low for a figure."""
OPAQUE = 0.78
"""From this share of the greatest gain a cell is so dark that its figure is written in white."""


def heat_map(report: LocateReport) -> Figure:
    """Draw layers × places, darker where a unit step of the report's rank gains more; sites and weights apart.

    Raises ActshiftError where matplotlib is not installed.
    """
    sides = [side for side in (report.sites, maps(report)) if side]
    figure = new_figure(1 + 0.75 * sum(map(len, sides)) + 1.2 * len(sides), height(report))
    all_axes = figure.subplots(1, len(sides), squeeze=False, width_ratios=[len(side) for side in sides])[0]
    for axes, side in zip(all_axes, sides, strict=True):
        heat(axes, report, side)
        axes.set_title("LoRA on a linear map" if side == maps(report) else "steering", fontsize=9, loc="left")
    figure.suptitle(f"What a unit step of rank {report.rank} takes off the loss, to first order", x=0.02, ha="left")
    return figure


def per_parameter(report: LocateReport) -> Figure:
    """Draw the gain per 1,000 parameters of the best methods, each in every block, with its standard error.

    Raises ActshiftError where matplotlib is not installed.
    """
    methods = report.methods[:BARS][::-1]
    figure = new_figure(4.9, 0.9 + 0.25 * len(methods))
    axes = figure.subplots()
    for place, method in enumerate(methods):
        each = method.per_parameter.over(1 / 1000)
        bar = {"color": _colour(method.label), "ecolor": INK, "height": 0.66, "capsize": 2, "error_kw": {"lw": 1}}
        axes.barh(place, each.value, xerr=each.error, **bar)
    axes.set_yticks(range(len(methods)), [method.label for method in methods])
    finish(axes, "gain of a unit step per 1,000 parameters", "")
    return figure


def heat(axes: Any, report: LocateReport, names: Sequence[str]) -> None:
    """Draw layers × the places called `names`; a star is as good as the best, within two errors of the difference."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    cells = {(place.layer, place.site): place for place in report.places if place.site in names}
    layers = sorted({layer for layer, _ in cells})
    gains = {key: place.gain(report.rank) for key, place in cells.items()}
    best = max(gains.values(), key=lambda gain: gain.value)
    colour = WEIGHTS if next(iter(cells.values())).weight else POST_BLOCK
    shades = LinearSegmentedColormap.from_list("gain", [to_rgba(colour, 0.04), to_rgba(colour, 1.0)])
    grid = [
        [gains[layer, name].value if (layer, name) in gains else float("nan") for name in names] for layer in layers
    ]
    axes.pcolormesh(grid, cmap=shades, vmin=0, vmax=best.value or 1, edgecolors="none")
    for row, layer in enumerate(layers if len(layers) <= WRITTEN_ROWS else ()):
        for column, name in enumerate(names):
            if (gain := gains.get((layer, name))) is not None:
                star = "*" if gain.error is not None and not best.minus(gain).clear else ""
                ink = ON_COLOUR if gain.value > OPAQUE * best.value else INK
                where = (column + 0.5, row + 0.5)
                axes.annotate(f"{gain.value:.3g}{star}", where, ha="center", va="center", fontsize=8, color=ink)
    axes.invert_yaxis()
    axes.set_xticks([column + 0.5 for column in range(len(names))], [name.rpartition(".")[2] for name in names])
    axes.set_yticks([row + 0.5 for row in range(len(layers))], [str(layer) for layer in layers])
    finish(axes, "", "block")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(names) > 3:
        axes.tick_params("x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def maps(report: LocateReport) -> tuple[str, ...]:
    """Return the kinds of linear map that were looked at, in their order."""
    return tuple(dict.fromkeys(place.site for place in report.places if place.weight))


def height(report: LocateReport) -> float:
    """Return how high a heat map should be, in inches."""
    return min(1 + 0.3 * len({place.layer for place in report.places}), 14)


def _colour(label: str) -> str:
    if label.startswith("LoRA"):
        return WEIGHTS
    return POST_BLOCK if label.startswith("post_block") else ELSEWHERE


LITTLE = 1.02
"""A gain of less than 2 % over an even spread is not worth a config of its own."""


def sections(report: LocateReport) -> Iterator[Section]:
    """Give the sections that a location fills."""
    yield _where(report)
    if maps(report):
        yield _weights(report)
    yield _methods_section(report)


def _where(report: LocateReport) -> Section:
    places = [place for place in report.places if not place.weight]
    best = max(places, key=lambda place: place.gain(report.rank).value)
    return Section(
        key="where",
        title="Where to steer",
        reading=f"Each cell is what a step of rank {report.rank} and norm 1 there takes off the loss, to first order "
        "and in nats: the stronger the colour the more, a star is as good as the best within the noise, and since "
        "activations differ in size from site to site, a column is safer to compare down than across.",
        advice=f"{_first(report)} {_named(best)}, which gains {_number(best.gain(report.rank))}; {_spent(report)}.",
        alt=f"Heat map of {len(report.sites)} sites by {len({p.layer for p in places})} blocks; the greatest gain is "
        f"{_number(best.gain(report.rank))} {_named(best)}.",
        columns=("block", *report.sites),
        rows=_grid(report, report.sites),
        draw=lambda: _heat_figure(report, report.sites),
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
        f"the greatest gain is {_named(place)} ({_number(place.gain(report.rank))}).",
        alt=f"Heat map of {len(names)} linear maps by {len(report.at(first))} blocks; the greatest gain is "
        f"{_number(place.gain(report.rank))} {_named(place)}.",
        columns=("block", *map(_short, names)),
        rows=_grid(report, names),
        draw=lambda: _heat_figure(report, names),
    )


def _methods_section(report: LocateReport) -> Section:
    shown = report.methods[:BARS]
    return Section(
        key="gain",
        title="What a parameter buys",
        reading="Each bar is the first-order gain of one method in every block per 1,000 parameters that it takes, "
        "with one standard error; low ranks lead, as each further rank adds less and costs the same.",
        advice=_compared(report),
        alt=f"Bars of the {len(shown)} methods with the greatest gain per parameter, from {shown[0].label} at "
        f"{_number(_per_1000(shown[0]))} to {shown[-1].label} at {_number(_per_1000(shown[-1]))}.",
        columns=("in every block", "parameters", "gain", "gain per 1,000"),
        rows=tuple(
            (one.label, f"{one.parameters:,}", _number(one.gain), _number(_per_1000(one))) for one in report.methods
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
        return f"For the fewest parameters train {best.label}, with {_number(_per_1000(best))} per 1,000 of them."
    one, other = best.per_parameter, lora[0].per_parameter
    pair = f"{_number(_per_1000(best))} against {_number(_per_1000(lora[0]))} per 1,000 parameters"
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


def _heat_figure(report: LocateReport, names: Sequence[str]) -> Figure:
    figure = new_figure(0.9 + max(0.55, 3.0 / len(names)) * len(names), height(report))
    heat(figure.subplots(), report, names)
    return figure


def _grid(report: LocateReport, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    found = {(place.layer, place.site): _number(place.gain(report.rank)) for place in report.places}
    layers = sorted({place.layer for name in names for place in report.at(name)})
    return tuple((str(layer), *(found.get((layer, name), "–") for name in names)) for layer in layers)


def _together(spent: Sequence[tuple[SiteGain, int]]) -> float:
    return together([place.gain(rank) for place, rank in spent]).value or 1.0


def _named(place: SiteGain) -> str:
    return f"at {_short(place.site)} of {blocks([place.layer])}"


def _short(site: str) -> str:
    return site.rpartition(".")[2]


def _per_1000(method: MethodGain) -> Estimate:
    return method.per_parameter.over(1 / 1000)


def _number(one: Estimate) -> str:
    return f"{one.value:.3g}" + (f" ± {one.error:.1g}" if one.error is not None else "")
