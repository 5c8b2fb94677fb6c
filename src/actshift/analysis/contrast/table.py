"""A contrast as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.contrast.report import ContrastReport

METHODS = {"mean": "difference of means", "pca": "first principal axis of the pairs' differences"}
TOKENS = {"last": "at the last token", "mean": "of the mean over tokens"}


def table(report: ContrastReport) -> RenderableType:
    """Return a row a block, with what one must know to read it."""
    names = ("‖v‖", "‖v‖ / ‖h‖", "separation")
    rows = Table("block", *(Column(name, justify="right") for name in names), box=None, pad_edge=False)
    for one in report.layers:
        rows.add_row(str(one.layer), f"{one.norm:.3g}", f"{one.relative:.3f}", f"{one.separation:.1%}")
    head = f"{report.positive} positive and {report.negative} negative rows: {METHODS[report.method]} "
    reading = "separation: rows left out of the fit that fall on their side of a threshold on h · v; 50 % is chance."
    return Group(head + TOKENS[report.token], "", rows, "", reading, *report.notes)
