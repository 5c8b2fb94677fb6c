"""A report as a picture: accuracy against trainable parameters."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from actshift.analysis.figures import ELSEWHERE, INK, OTHER, POST_BLOCK, WEIGHTS, new_figure
from actshift.compare.report import CompareReport, ReportRow

if TYPE_CHECKING:
    from rich.table import Table


COLUMNS = ("method", "trainable", "share", "rate", "valid.", "test ± sd", "Δ full", "seconds")
NONE = "–"


def cells(report: CompareReport) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table as text: the untouched base, then a method each."""
    base = (_percent(report.base_validation), _percent(report.base_test))
    yield ("untouched base", "0", NONE, NONE, *base, NONE, NONE)
    for row in report.rows:
        yield (
            row.label,
            NONE if row.trainable is None else f"{row.trainable:,}",
            NONE if row.share is None else f"{100 * row.share:.3g}%",
            NONE if row.rate is None else "/".join(short_rate(rate) for rate in (row.rate, row.lora_rate) if rate),
            _percent(mean(row.validation)) if row.validation else NONE,
            _test(row, report.protocol["seeds"]),
            NONE if row.to_full is None else f"{100 * row.to_full:+.1f}",
            NONE if row.seconds is None else f"{row.seconds:,.0f}",
        )


def rich_table(report: CompareReport) -> Table:
    """Return the table for a terminal; eighty columns are enough for it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    table = Table(
        Column(COLUMNS[0], overflow="fold"),
        *(Column(name, justify="right", no_wrap=True) for name in COLUMNS[1:]),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"{report.measure}, {report.title}",
        title_justify="left",
        caption=notes(report),
        caption_justify="left",
    )
    for line in cells(report):
        table.add_row(*line)
    return table


def plain(report: CompareReport) -> str:
    """Return the table as plain text."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=120, color_system=None).print(rich_table(report))
    return text.getvalue().rstrip()


def markdown(report: CompareReport) -> str:
    """Return the table in Markdown, with what it was measured on and how, every seed and every rate."""
    made = report.made
    lines = [
        f"# Comparison on `{report.title}`",
        "",
        f"`{made['command']}`, {made['date']}, {made['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in made["versions"].items())
        + ".",
        "",
        *(_line(line) for line in (COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)])),
        *(_line(line) for line in cells(report)),
        "",
        notes(report),
        "",
        "![accuracy against trainable parameters](table.png)",
        "",
        "## Every seed",
        "",
        *(_line(line) for line in (("method", "test accuracy of each seed"), ("---", "---"))),
        *(_line((row.label, ", ".join(map(_percent, row.test)) or NONE)) for row in report.rows),
        "",
        "## Every learning rate",
        "",
        "Validation accuracy with the first seed; the chosen rate is bold.",
        "",
        *(_line(line) for line in (("method", "rate: validation accuracy"), ("---", "---"))),
        *(_line((row.label, _sweep(row))) for row in report.rows),
    ]
    if report.failures:
        lines += ["", "## Failed", "", *(f"- {failure}" for failure in report.failures)]
    return "\n".join(lines) + "\n"


def notes(report: CompareReport) -> str:
    """Return what one must know to read the table."""
    protocol = report.protocol
    rows = protocol["rows"]
    sentences = [
        f"{rows['train']:,} rows to train on, {rows['validation']:,} to choose by, {rows['test']:,} to test.",
        f"Of each method's learning rates the best on validation was chosen with the first seed, and tested with "
        f"{protocol['seeds']}; sd is over these, Δ in points.",
    ]
    sentences += [
        f"{count} {name} rows are among those before, too." for name, count in protocol["shared_rows"].items() if count
    ]
    if report.left_out:
        sentences.append(f"{report.left_out:,} training rows were too long and left out.")
    if report.failures:
        sentences.append(f"{len(report.failures)} cells failed; of a method with * not all seeds are there.")
    return " ".join(sentences)


def short_rate(rate: float) -> str:
    """Return a learning rate as short as it can be read: 1.5e-3."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _test(row: ReportRow, seeds: int) -> str:
    if row.state != "done" or row.mean is None:
        return row.state
    spread = "" if row.spread is None else f" ± {100 * row.spread:.1f}"
    missing = "" if len(row.test) == seeds else "*"
    return f"{_percent(row.mean)}{spread}{missing}"


def _sweep(row: ReportRow) -> str:
    tried = []
    for one in row.sweep:
        text = f"{short_rate(one.rate)}: " + ("failed" if one.failure else _percent(one.validation))
        tried.append(f"**{text}**" if one.rate == row.rate else text)
    return ", ".join(tried)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _line(line: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(line)} |"


COLOURS = {"full": INK, "lora": WEIGHTS, "joint": OTHER}
PLACES = [(right, up) for up in (0, 11, -11, 22, -22, 33, -33) for right in (9, -9)]
"""Where a label may stand beside its point, in points of 1/72 inch, the best first."""


def draw(report: CompareReport, path: Path) -> None:
    """Write a PNG: mean test accuracy with its spread over seeds, against what each method trains (log scale)."""
    figure = new_figure(8, 5)
    axes: Any = figure.subplots()
    axes.set_xscale("log")
    points = [Point.of(row) for row in report.rows if row.mean is not None and row.trainable]
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
    _label(figure, axes, points)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(part, format="png")
    part.replace(path)


class Point(NamedTuple):
    """A method in the picture; y and spread in percent."""

    label: str
    x: int
    y: float
    spread: float | None
    colour: str

    @classmethod
    def of(cls, row: ReportRow) -> Point:
        """The point of a row that has its accuracy."""
        assert row.mean is not None and row.trainable is not None
        return cls(row.label, row.trainable, 100 * row.mean, 100 * row.spread if row.spread else None, colour(row))


def colour(row: ReportRow) -> str:
    """The colour of a method: those that train weights, those after the block, and those elsewhere."""
    if (method := row.settings.get("method")) in COLOURS:
        return COLOURS[method]
    at_home = row.settings.get("adapter", "low_rank") not in ("lofit", "jola")
    return POST_BLOCK if at_home and row.settings.get("site", "post_block") == "post_block" else ELSEWHERE


def _draw_base(axes: Any, accuracy: float) -> None:
    axes.axhline(accuracy, color="#9ca3af", linestyle="--", linewidth=1)
    axes.annotate(
        f"untouched base {accuracy:.1f}",
        (0.995, accuracy),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=8,
        color="#6b7280",
    )


def _label(figure: Any, axes: Any, points: list[Point]) -> None:
    """Write each method's name beside its point, at the first place where it covers neither a point nor a name."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = axes.transData.transform([(point.x, point.y) for point in points])
    taken: list[Any] = []
    for point in sorted(points, key=lambda point: -point.y):
        for place in PLACES:
            label = _annotate(axes, point, *place)
            box = label.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken) and not any(box.contains(*centre) for centre in centres):
                break
            if place != PLACES[-1]:
                label.remove()
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
