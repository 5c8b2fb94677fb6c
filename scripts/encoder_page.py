"""The tables of docs/results/encoders.md, for encoder_results.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actshift.compare.rendering import COLUMNS, NONE, cells, markdown, notes

from actshift.compare.report import CompareReport

TITLES = {"sst2": "SST-2", "mnli": "MNLI"}


def table(report: CompareReport, head: int, peaks: dict[str, float]) -> Iterator[str]:
    """Yield the lines of the table: a method each, the head's parameters left out, its peak memory added."""
    columns: list[str] = [*COLUMNS, *(["peak MB"] if peaks else [])]
    yield line(columns)
    yield line(["---", *["---:"] * (len(columns) - 1)])
    names = ["base", *(row.method for row in report.rows)]
    for name, own in zip(names, cells(report), strict=True):
        trained = next((row.trainable for row in report.rows if row.method == name), None)
        beside = [own[0], own[1] if trained is None else f"{trained - head:,}", *own[2:]]
        yield line([*beside, *([f"{peaks[name]:,.0f}" if name in peaks else NONE] if peaks else [])])


def line(words: list[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(words)} |"


def section(task: str, report: CompareReport, head: dict[str, float], peaks: dict[str, float]) -> Iterator[str]:
    """Yield all of a comparison: its table, and below it what compare's own page tells."""
    made, own = report.made, markdown(report).replace("table.png", f"encoders_{task}.png")
    yield f"## {TITLES[task]}"
    yield ""
    versions = ", ".join(f"{name} {one}" for name, one in made["versions"].items())
    yield f"{made['date']}, {made['machine']}; {versions}."
    yield (
        f"`trainable` leaves out the head's {head['parameters']:,} parameters, which every method trains; the head "
        f"alone, fitted to the untouched model by logistic regression, reaches {head['test']:.1%}."
    )
    yield ""
    yield from table(report, int(head["parameters"]), peaks)
    yield ""
    rest = own.partition(notes(report))
    yield (rest[1] + rest[2]).replace("\n## ", "\n### ")


def norms_table(found: dict[str, Any]) -> Iterator[str]:
    """Yield what was found at the norms, a block a line."""
    yield "## The norm behind the skip"
    yield ""
    yield (
        f"By `scripts/encoder_norms.py` on {found['texts']} validation texts of SST-2, seed 0. Sum: ‖x + attention + "
        "MLP - h‖ over ‖h‖; normed: the same of LN(LN(x + attention) + MLP). Taken out: of the change that full "
        "fine-tuning of the MLP makes in front of the norm, the share of its energy that the norm removes; missed: "
        "what J δy misses of what is behind it. Then for shifts behind the norm, in its own units, their size and the "
        "radius that they end at: of the oracle (h of the fine-tuned model less h), and of trained adapters."
    )
    yield ""
    shifts = [name for name, one in found["layers"][0].items() if isinstance(one, dict)]
    yield line(["block", "sum", "normed", "taken out", "missed", *shifts])
    yield line(["---", *["---:"] * (4 + len(shifts))])
    for number, one in enumerate(found["layers"]):
        ends = [f"{one[name]['size']:.2f} → {one[name]['radius']:.3f}" for name in shifts]
        shares = [f"{one[name]:.1%}" for name in ("taken_out", "missed")]
        yield line([str(number), f"{one['sum']:.2f}", f"{one['normed']:.0e}", *shares, *ends])
