"""A report as plain text."""

from __future__ import annotations

from rich.console import Console

COLUMNS = 160


class Plain:
    """Mixed into what prints as tables on a terminal: as text it is the same, without colours, wide enough for them."""

    def __str__(self) -> str:
        console = Console(width=COLUMNS, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())
