"""The page of a comparison: its report in Markdown, and a figure of accuracy against trainable parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actshift.analysis.figures import ELSEWHERE, INK, OTHER, POST_BLOCK, WEIGHTS, figure_text, new_figure, save_figure
from actshift.compare.report import NONE, CompareReport, ReportRow, notes, percent, short_rate, table_lines
from actshift.markdown import markdown_code, markdown_text

COLOURS = {"full": INK, "lora": WEIGHTS, "joint": OTHER}
LABEL_OFFSETS = [(right, up) for up in (0, 11, -11, 22, -22, 33, -33) for right in (9, -9)]
"""Candidate offsets of a label from its point, in points of 1/72 inch, best first."""


def markdown(report: CompareReport) -> str:
    """Return a Markdown page: provenance, table, figure (table.png), every seed, and every learning rate."""
    made, rows = report.made, report.rows
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    seeds = ((row.label, ", ".join(map(percent, row.test)) or NONE) for row in rows)
    rates = ((row.label, _sweep_text(row)) for row in rows)
    names, *lines = table_lines(report)
    blocks = [
        f"# Comparison on {markdown_code(report.title)}",
        f"{markdown_code(made['command'])}, {made['date']}, {made['machine']}; {versions}.",
        _table(names, ["---", *["---:"] * (len(names) - 1)], *lines),
        notes(report),
        "![accuracy against trainable parameters](table.png)",
        "## Every seed",
        _table(("method", "test accuracy of each seed"), ("---", "---"), *seeds),
        "## Every learning rate",
        "Validation accuracy with the first seed. The chosen rate is bold.",
        _table(("method", "rate: validation accuracy"), ("---", "---"), *rates),
    ]
    if report.failures:
        blocks += ["## Failed", "\n".join(f"- {markdown_text(failure)}" for failure in report.failures)]
    return "\n\n".join(blocks) + "\n"


def _table(*rows: Sequence[str]) -> str:
    return "\n".join(map(markdown_line, rows))


def markdown_line(texts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(_cell, texts))} |"


def _cell(text: str) -> str:
    return text if set(text) <= {*"-:"} else markdown_text(text)


def _sweep_text(row: ReportRow) -> str:
    texts: list[str] = []
    for point in row.sweep:
        text = f"{short_rate(point.rate)}: " + ("failed" if point.failure else percent(point.validation))
        texts.append(f"**{text}**" if point.rate == row.rate else text)
    return ", ".join(texts)


def draw(report: CompareReport, path: Path) -> None:
    """Write a PNG of the mean test accuracy and its spread over seeds against the trained parameters (log scale)."""
    figure = new_figure(8, 5)
    axes: Any = figure.subplots()
    axes.set_xscale("log")
    points: list[tuple[ReportRow, tuple[float, float]]] = []
    for row in report.rows:
        if row.mean is not None and row.trainable:
            x, y, spread = row.trainable, 100 * row.mean, 100 * row.spread if row.spread else None
            axes.errorbar(x, y, yerr=spread, fmt="o", color=_colour(row), markersize=6, capsize=3, elinewidth=1)
            points.append((row, (x, y)))
    if report.base_test is not None:
        base = 100 * report.base_test
        axes.axhline(base, color="#9ca3af", linestyle="--", linewidth=1)
        style = {"ha": "right", "va": "bottom", "fontsize": 8, "color": "#6b7280"}
        axes.annotate(f"untouched base {base:.1f}", (0.995, base), xycoords=("axes fraction", "data"), **style)
    axes.set(xlabel="trainable parameters", ylabel=f"{report.measure.lower()} on the test rows, %")
    axes.set_title(f"{figure_text(report.title)}, {report.protocol['seeds']} seeds", loc="left", fontsize=10)
    axes.margins(x=0.18, y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 104))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    _draw_labels(figure, axes, points)
    save_figure(figure, path)


def _colour(row: ReportRow) -> str:
    """Return the colour for weight updates, post-block steering or steering elsewhere."""
    if (method := row.settings.get("method")) in COLOURS:
        return COLOURS[method]
    of_blocks = row.settings.get("adapter", "low_rank") not in ("lofit", "jola")
    return POST_BLOCK if of_blocks and row.settings.get("site", "post_block") == "post_block" else ELSEWHERE


def _draw_labels(figure: Any, axes: Any, points: list[tuple[ReportRow, tuple[float, float]]]) -> None:
    """Write each label at the first offset without overlap with points and other labels, or at the last offset."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = axes.transData.transform([position for _, position in points])
    taken: list[Any] = []
    for row, position in sorted(points, key=lambda point: -point[1][1]):
        style = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": _colour(row)}
        for right, up in LABEL_OFFSETS:
            arrow = {"arrowstyle": "-", "color": "#d1d5db", "linewidth": 0.6} if up else None
            side = "left" if right > 0 else "right"
            label = axes.annotate(
                figure_text(row.label), position, xytext=(right, up), ha=side, arrowprops=arrow, **style
            )
            box = label.get_window_extent(renderer)
            is_free = not any(map(box.overlaps, taken)) and not any(box.contains(*centre) for centre in centres)
            if is_free or (right, up) == LABEL_OFFSETS[-1]:
                taken.append(box)
                break
            label.remove()
