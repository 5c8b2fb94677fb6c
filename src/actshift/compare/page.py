"""The page of a comparison: its report in Markdown, and a figure of accuracy against trainable parameters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actshift.analysis.figures import ELSEWHERE, INK, OTHER, POST_BLOCK, WEIGHTS, new_figure
from actshift.compare.report import COLUMNS, NONE, CompareReport, ReportRow, notes, percent, short_rate, table_cells

COLOURS = {"full": INK, "lora": WEIGHTS, "joint": OTHER}
LABEL_OFFSETS = [(right, up) for up in (0, 11, -11, 22, -22, 33, -33) for right in (9, -9)]
"""Candidate offsets of a label from its point, in points of 1/72 inch, best first."""


def markdown(report: CompareReport) -> str:
    """Return a Markdown page: provenance, table, figure (table.png), every seed, and every learning rate."""
    made = report.made
    lines = [
        f"# Comparison on `{report.title}`",
        "",
        f"`{made['command']}`, {made['date']}, {made['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in made["versions"].items())
        + ".",
        "",
        *map(markdown_line, (COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *table_cells(report))),
        "",
        notes(report),
        "",
        "![accuracy against trainable parameters](table.png)",
        "",
        "## Every seed",
        "",
        *map(markdown_line, (("method", "test accuracy of each seed"), ("---", "---"))),
        *(markdown_line((row.label, ", ".join(map(percent, row.test)) or NONE)) for row in report.rows),
        "",
        "## Every learning rate",
        "",
        "Validation accuracy with the first seed. The chosen rate is bold.",
        "",
        *map(markdown_line, (("method", "rate: validation accuracy"), ("---", "---"))),
        *(markdown_line((row.label, _sweep_text(row))) for row in report.rows),
    ]
    if report.failures:
        lines += ["", "## Failed", "", *(f"- {failure}" for failure in report.failures)]
    return "\n".join(lines) + "\n"


def markdown_line(texts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def _sweep_text(row: ReportRow) -> str:
    texts: list[str] = []
    for point in row.sweep:
        text = f"{short_rate(point.rate)}: " + ("failed" if point.failure else percent(point.validation))
        texts.append(f"**{text}**" if point.rate == row.rate else text)
    return ", ".join(texts)


class Point(NamedTuple):
    """A method in the figure; y and spread are in percent."""

    label: str
    x: int
    y: float
    spread: float | None
    colour: str


def draw(report: CompareReport, path: Path) -> None:
    """Write a PNG of the mean test accuracy and its spread over seeds against the trained parameters (log scale)."""
    figure = new_figure(8, 5)
    axes: Any = figure.subplots()
    axes.set_xscale("log")
    points = [
        Point(row.label, row.trainable, 100 * row.mean, 100 * row.spread if row.spread else None, _colour(row))
        for row in report.rows
        if row.mean is not None and row.trainable
    ]
    for point in points:
        axes.errorbar(
            point.x, point.y, yerr=point.spread, fmt="o", color=point.colour, markersize=6, capsize=3, elinewidth=1
        )
    if report.base_test is not None:
        _draw_base(axes, 100 * report.base_test)
    axes.set(xlabel="trainable parameters", ylabel=f"{report.measure.lower()} on the test rows, %")
    axes.set_title(f"{report.title}, {report.protocol['seeds']} seeds", loc="left", fontsize=10)
    axes.margins(x=0.18, y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 104))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    _draw_labels(figure, axes, points)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(part, format="png")
    part.replace(path)


def _colour(row: ReportRow) -> str:
    """Return the colour for weight updates, post-block steering or steering elsewhere."""
    if (method := row.settings.get("method")) in COLOURS:
        return COLOURS[method]
    of_blocks = row.settings.get("adapter", "low_rank") not in ("lofit", "jola")
    return POST_BLOCK if of_blocks and row.settings.get("site", "post_block") == "post_block" else ELSEWHERE


def _draw_base(axes: Any, accuracy: float) -> None:
    axes.axhline(accuracy, color="#9ca3af", linestyle="--", linewidth=1)
    text, style = f"untouched base {accuracy:.1f}", {"ha": "right", "va": "bottom", "fontsize": 8, "color": "#6b7280"}
    axes.annotate(text, (0.995, accuracy), xycoords=("axes fraction", "data"), **style)


def _draw_labels(figure: Any, axes: Any, points: list[Point]) -> None:
    """Write each label at the first offset without overlap with points and other labels, or at the last offset."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = axes.transData.transform([(point.x, point.y) for point in points])
    taken: list[Any] = []
    for point in sorted(points, key=lambda point: -point.y):
        *others, last = LABEL_OFFSETS
        for offset in others:
            label = _annotate(axes, point, *offset)
            box = label.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken) and not any(box.contains(*centre) for centre in centres):
                break
            label.remove()
        else:
            box = _annotate(axes, point, *last).get_window_extent(renderer)
        taken.append(box)


def _annotate(axes: Any, point: Point, right: int, up: int) -> Any:
    return axes.annotate(
        point.label,
        (point.x, point.y),
        xytext=(right, up),
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="center",
        fontsize=8,
        color=point.colour,
        arrowprops={"arrowstyle": "-", "color": "#d1d5db", "linewidth": 0.6} if up else None,
    )
