"""A report as plain text."""

from __future__ import annotations

from rich.console import Console, RenderableType

COLUMNS = 140


def plain(report: RenderableType) -> str:
    """Return what a report prints, without colours and wide enough for its tables."""
    console = Console(width=COLUMNS, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(report)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
