"""A location as pictures: where to steer, and what a parameter buys by each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.analysis.drawing import ELSEWHERE, INK, ON_COLOUR, POST_BLOCK, WEIGHTS, finish, new_figure
from actshift.analysis.locate.report import LocateReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
