"""growth.png: how time and memory grow, drawn from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actshift.analysis.figures import EDGE, INK, POST_BLOCK, WEIGHTS, finish, new_figure
from benchmarks.figure import Figure

STYLES = {"step": "-", "decode": "-", "peak memory": ":", "prefill": ":"}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write a PNG with a panel for each table: each column is a line, with its quartiles where it has them."""
    places = list(dict.fromkeys(one.where for one in figures))
    canvas = new_figure(11, 6.4)
    panels: list[Any] = list(canvas.subplots(2, 3).flat)
    for axes, where in zip(panels, places, strict=False):
        here = [one for one in figures if one.where == where]
        for name in dict.fromkeys(one.name for one in here):
            _line(axes, name, sorted((one for one in here if one.name == name), key=lambda one: int(one.case)))
        what, _, rest = where.partition(", ")
        axes.axhline(1, color=EDGE, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks := sorted({int(one.case) for one in here}), labels=[str(tick) for tick in ticks])
        axes.minorticks_off()
        finish(axes, what, "over the base, log scale" if "adapters" in what else "over the floor", rest)
        if "adapters" in what:  # from about 1 to as many as there are adapters
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines() if line.get_marker() == "o"}
    for axes in panels[len(places) :]:
        axes.set_axis_off()
    panels[-1].legend(lines.values(), lines, loc="center", frameon=False, labelcolor=INK, handlelength=3)
    canvas.savefig(path)


def _line(axes: Any, name: str, figures: Sequence[Figure]) -> None:
    method, _, what = name.partition(", ")
    places, values = [int(one.case) for one in figures], [one.value for one in figures]
    colour = WEIGHTS if method == "LoRA" else POST_BLOCK
    axes.plot(places, values, STYLES[what], color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
    lows, highs = [one.low or one.value for one in figures], [one.high or one.value for one in figures]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.12, linewidth=0)
