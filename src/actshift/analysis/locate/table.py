"""A location as tables: layers × places as a heat map, and methods by gain per parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actshift.analysis.locate.estimate import Estimate
from actshift.analysis.locate.report import LocateReport, Place

if TYPE_CHECKING:
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


def _heat(report: LocateReport, columns: Sequence[Sequence[Place]], title: str, spread: bool = True) -> Table:
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


def _heading(site: str, columns: Sequence[Sequence[Place]]) -> str:
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
