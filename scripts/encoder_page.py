"""Markdown sections of docs/results/encoders.md, for encoder_results.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actshift.compare.page import markdown, markdown_line
from actshift.compare.report import COLUMNS, NONE, CompareReport, notes, table_cells

TITLES = {"sst2": "SST-2", "mnli": "MNLI"}


def table(report: CompareReport, head: int, peaks: dict[str, float]) -> Iterator[str]:
    """Yield the lines of the table of methods, without the parameters of the head and with the peak memory."""
    columns: list[str] = [*COLUMNS, *(["peak MB"] if peaks else [])]
    yield markdown_line(columns)
    yield markdown_line(["---", *["---:"] * (len(columns) - 1)])
    names = ["base", *(row.method for row in report.rows)]
    for name, cells in zip(names, table_cells(report), strict=True):
        trainable = next((row.trainable for row in report.rows if row.method == name), None)
        line = [cells[0], cells[1] if trainable is None else f"{trainable - head:,}", *cells[2:]]
        yield markdown_line([*line, *([f"{peaks[name]:,.0f}" if name in peaks else NONE] if peaks else [])])


def section(task: str, report: CompareReport, head: dict[str, float], peaks: dict[str, float]) -> Iterator[str]:
    """Yield the section of a task: its table, and the rest of the page that `actshift compare` writes."""
    made, page = report.made, markdown(report).replace("table.png", f"encoders_{task}.png")
    yield f"## {TITLES[task]}"
    yield ""
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    yield f"{made['date']}, {made['machine']}; {versions}."
    yield (
        f"`trainable` excludes the {head['parameters']:,} parameters of the head, which every method trains. The head "
        f"alone, fitted to the untouched model by logistic regression, reaches {head['test']:.1%}."
    )
    yield ""
    yield from table(report, int(head["parameters"]), peaks)
    yield ""
    _, first, rest = page.partition(notes(report))
    yield (first + rest).replace("\n## ", "\n### ")


def norms_table(norms: dict[str, Any]) -> Iterator[str]:
    """Yield the section about the norm after the skip connection, with one line for each block."""
    yield "## The norm after the skip connection"
    yield ""
    yield (
        f"Measured by `scripts/encoder_norms.py` on {norms['texts']} validation texts of SST-2, seed 0. Sum is "
        "‖x + attention + MLP - h‖ over ‖h‖; normed is the same for LN(LN(x + attention) + MLP). Full fine-tuning of "
        "the MLP changes the input of the norm. Taken out is the share of the energy of this change that the norm "
        "removes; missed is the relative error of J δy as a prediction of the change after the norm. The last columns "
        "are shifts after the norm, in its own units: size → radius of the shifted state. The oracle is h of the "
        "fine-tuned model minus h; the others are trained adapters."
    )
    yield ""
    shifts = [name for name, value in norms["layers"][0].items() if isinstance(value, dict)]
    yield markdown_line(["block", "sum", "normed", "taken out", "missed", *shifts])
    yield markdown_line(["---", *["---:"] * (4 + len(shifts))])
    for i, layer in enumerate(norms["layers"]):
        ends = [f"{layer[name]['size']:.2f} → {layer[name]['radius']:.3f}" for name in shifts]
        shares = [f"{layer[name]:.1%}" for name in ("taken_out", "missed")]
        yield markdown_line([str(i), f"{layer['sum']:.2f}", f"{layer['normed']:.0e}", *shares, *ends])
