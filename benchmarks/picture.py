"""Draw growth.png, the growth of time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actshift.analysis.figures import EDGE, INK, POST_BLOCK, WEIGHTS, label_axes, new_figure
from benchmarks.figure import Figure

STYLES = {"step": "-", "decode": "-", "peak memory": ":", "prefill": ":"}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write a PNG with one panel per table and one line per column, with quartiles if there are any."""
    tables = list(dict.fromkeys(figure.where for figure in figures))
    canvas = new_figure(11, 6.4)
    panels: list[Any] = list(canvas.subplots(2, 3).flat)
    for axes, where in zip(panels, tables, strict=False):
        here = [figure for figure in figures if figure.where == where]
        for name in dict.fromkeys(figure.name for figure in here):
            column = [figure for figure in here if figure.name == name]
            _line(axes, name, sorted(column, key=lambda figure: int(figure.case)))
        title, _, rest = where.partition(", ")
        axes.axhline(1, color=EDGE, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks := sorted({int(figure.case) for figure in here}), labels=[str(tick) for tick in ticks])
        axes.minorticks_off()
        label_axes(axes, title, "over the base, log scale" if "adapters" in title else "over the floor", rest)
        if "adapters" in title:  # values range from about 1 to the number of adapters
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines() if line.get_marker() == "o"}
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    panels[-1].legend(lines.values(), lines, loc="center", frameon=False, labelcolor=INK, handlelength=3)
    canvas.savefig(path)


def _line(axes: Any, name: str, figures: Sequence[Figure]) -> None:
    method, _, quantity = name.partition(", ")
    cases, values = [int(figure.case) for figure in figures], [figure.value for figure in figures]
    colour = WEIGHTS if method == "LoRA" else POST_BLOCK
    axes.plot(cases, values, STYLES[quantity], color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
    lows = [figure.low or figure.value for figure in figures]
    highs = [figure.high or figure.value for figure in figures]
    axes.fill_between(cases, lows, highs, color=colour, alpha=0.12, linewidth=0)
