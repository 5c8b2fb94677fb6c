"""A location as pictures: where to steer, and what a parameter buys by each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.analysis.locate.report import LocateReport, Place
from actshift.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POST_BLOCK, ELSEWHERE, LORA = "#c2410c", "#2563eb", "#6b7280"
BARS = 14


def heat_map(report: LocateReport) -> Figure:
    """Draw layers × places, darker where a unit step of the report's rank gains more; sites and weights apart.

    Raises ActshiftError where matplotlib is not installed.
    """
    names = list(dict.fromkeys(place.site for place in report.places))
    sides = [side for weight in (False, True) if (side := [n for n in names if report.at(n)[0].weight == weight])]
    layers = sorted({place.layer for place in report.places})
    height = 1.6 + 0.3 * len(layers)
    figure = _figure((3.2 + 0.75 * len(names), min(height, 14)))
    all_axes = figure.subplots(1, len(sides), squeeze=False, width_ratios=[len(side) for side in sides])[0]
    for axes, side in zip(all_axes, sides, strict=True):
        _panel(figure, axes, report, side, layers)
    all_axes[0].set_ylabel("block")
    figure.suptitle(f"What a unit step of rank {report.rank} takes off the loss, to first order", x=0.02, ha="left")
    return figure


def per_parameter(report: LocateReport) -> Figure:
    """Draw the gain per 1,000 parameters of the best methods, each in every block, with its standard error.

    Raises ActshiftError where matplotlib is not installed.
    """
    methods = report.methods[:BARS][::-1]
    figure = _figure((7.2, 1.2 + 0.27 * len(methods)))
    axes = figure.subplots()
    for place, method in enumerate(methods):
        each = method.per_parameter.over(1 / 1000)
        axes.barh(place, each.value, xerr=each.error, color=_colour(method.label), height=0.62, capsize=2)
    axes.set_yticks(range(len(methods)), [method.label for method in methods], fontsize=8)
    axes.set_xlabel("gain of a unit step per 1,000 parameters")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(size: tuple[float, float]) -> Any:
    figure = require("matplotlib.figure", "plot").Figure(figsize=size, dpi=150, layout="constrained")
    require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    return figure


def _panel(figure: Any, axes: Any, report: LocateReport, names: list[str], layers: list[int]) -> None:
    cells: dict[tuple[int, str], Place] = {(place.layer, place.site): place for place in report.places}
    gains = [
        [cells[layer, name].gain(report.rank).value if (layer, name) in cells else float("nan") for name in names]
        for layer in layers
    ]
    image = axes.imshow(gains, cmap="Oranges" if not report.at(names[0])[0].weight else "Greys", vmin=0, aspect="auto")
    axes.set_xticks(range(len(names)), [name.rpartition(".")[2] for name in names], rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=8)
    axes.set_title("LoRA on a linear map" if report.at(names[0])[0].weight else "steering", fontsize=9, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)


def _colour(label: str) -> str:
    if label.startswith("LoRA"):
        return LORA
    return POST_BLOCK if label.startswith("post_block") else ELSEWHERE
