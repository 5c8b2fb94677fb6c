"""Show the sections of a report in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from actshift.analysis.render.figures import Plot, panels
from actshift.analysis.render.sections import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN_WIDTH = 160
GAP = 2


class Plain:
    """Mixin that converts a report with `__rich__` to plain text, without colours and 160 columns wide."""

    def __str__(self) -> str:
        console = Console(width=PLAIN_WIDTH, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


class SectionReport(Plain):
    """Base class of a report, which is a dataclass, that prints as its sections."""

    figure_size = (8.0, 3.2)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The results of the analysis, in reading order."""
        raise NotImplementedError

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The panels of `figure`."""
        return tuple(section.plot for section in self.sections if section.plot)

    def figure(self) -> Figure:
        """Return a figure of the report.

        Raises:
            ActshiftError: matplotlib is not installed.
        """
        return panels(*self.figure_size, *self.plots)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return asdict(cast(Any, self))

    def __rich__(self) -> RenderableType:
        """Return the sections for a terminal."""
        return to_terminal(self.sections)


def to_terminal(sections: Iterable[Section]) -> RenderableType:
    """Return titles, tables and explanations of sections, for rich to print.

    >>> section = Section("size", "Size", "Each row is a block.", ("block", "size"), (("0", "1.5"),))
    >>> Console(width=40, highlight=False).print(to_terminal([section]))
    Size
    block  size
    0       1.5
    How to read it: Each row is a block.
    """
    parts: list[RenderableType] = []
    for section in sections:
        hidden = 0 if section.preview is None else max(0, len(section.rows) - section.preview)
        parts += ["", Text(section.title, style="bold"), _SectionTable(section)]
        lines = [
            f"… and {hidden} more." if hidden else "",
            f"How to read it: {section.how_to_read}",
            f"What to do: {section.advice}" if section.advice else "",
            section.note,
        ]
        parts += [Text(line) for line in lines if line]
    return Group(*parts[1:])


class _SectionTable:
    """The table of a section. If it is wider than the terminal, its columns are split into several tables."""

    def __init__(self, section: Section) -> None:
        self.section = section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns, rows = self.section.columns, self.section.rows[: self.section.preview]
        widths = [max(cell_len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
        for group in _column_groups(widths, options.max_width):
            headings = [Column(columns[index], justify="right", no_wrap=True) for index in group]
            table = Table(Column(columns[0], overflow="fold"), *headings, box=None, pad_edge=False)
            for number, row in enumerate(rows):
                table.add_row(row[0], *(self._cell(number, index) for index in group))
            yield table

    def _cell(self, row: int, column: int) -> Text:
        text = Text(self.section.rows[row][column])
        if self.section.shades:
            level = self.section.shades[row][column - 1]
            dark, light = (round(255 - level * (255 - end)) for end in (30, 160))
            text.style = f"{'white' if level > 0.6 else 'black'} on rgb({dark},{light},{255 - round(40 * level)})"
        return text


def _column_groups(widths: Sequence[int], available: int) -> list[list[int]]:
    """Return the columns after the first one in groups that fit next to it, at least one column in each."""
    groups: list[list[int]] = [[]]
    used = widths[0]
    for index, width in enumerate(widths[1:], start=1):
        if groups[-1] and used + GAP + width > available:
            groups.append([])
            used = widths[0]
        groups[-1].append(index)
        used += GAP + width
    return groups
