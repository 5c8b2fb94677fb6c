"""Sections of a report, each with a table, a figure and an explanation, and their output in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from actshift.analysis.figures import Plot, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

GAP = 2  # number of spaces between two columns


def number(value: float, digits: int = 3) -> str:
    """Return a number with this many significant digits; a larger one is written out up to a billion.

    >>> number(0.01234), number(20.4, 1), number(12345.6), number(3e-7)
    ('0.0123', '20', '12,346', '3e-07')
    """
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text and abs(value) < 1e9 else text


@dataclass(frozen=True)
class Section:
    """One result of an analysis, for the terminal and for the HTML page.

    `key` is the anchor of the section and the stem of its image files, `how_to_read` a sentence that explains the
    table and the figure, and `alt` a description of the figure for screen readers. `advice` (the next step) and `note`
    (facts that the table and the figure leave out) may be empty. The first cell of a row names it. `plot` draws the
    figure, of a `size` in inches, and is None for a table alone. `shades` are, for each row, the colour strengths
    (0 to 1) of the cells after the first. `preview` is the number of rows in a terminal; None for all.
    """

    key: str
    title: str
    how_to_read: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    advice: str = ""
    note: str = ""
    alt: str = ""
    plot: Plot | None = None
    size: tuple[float, float] = (4.9, 3.1)
    shades: tuple[tuple[float, ...], ...] = ()
    preview: int | None = None

    def draw(self) -> Figure:
        """Return a new figure."""
        assert self.plot is not None
        return panels(*self.size, self.plot)

    def to_dict(self) -> dict[str, Any]:
        """Return the words and the table, ready for JSON."""
        words = {"key": self.key, "title": self.title, "reading": self.how_to_read, "advice": self.advice}
        return {**words, "note": self.note, "alt": self.alt, "columns": self.columns, "rows": self.rows}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(self.title, style="bold")
        rows = self.rows[: self.preview]
        widths = [max(map(cell_len, column)) for column in zip(self.columns, *rows, strict=True)]
        for group in _column_groups(widths, options.max_width):
            headings = [Column(self.columns[index], justify="right", no_wrap=True) for index in group]
            table = Table(Column(self.columns[0], overflow="fold"), *headings, box=None, pad_edge=False)
            for number, row in enumerate(rows):
                table.add_row(row[0], *(self._cell(number, index) for index in group))
            yield table
        if hidden := len(self.rows) - len(rows):
            yield Text(f"… and {hidden} more.")
        yield Text(f"How to read it: {self.how_to_read}")
        if self.advice:
            yield Text(f"What to do: {self.advice}")
        if self.note:
            yield Text(self.note)

    def _cell(self, row: int, column: int) -> Text:
        text = Text(self.rows[row][column])
        if self.shades:
            level = self.shades[row][column - 1]
            dark, light = (round(255 - level * (255 - end)) for end in (30, 160))
            text.style = f"{'white' if level > 0.6 else 'black'} on rgb({dark},{light},{255 - round(40 * level)})"
        return text


def _column_groups(widths: Sequence[int], available: int) -> list[list[int]]:
    """Return the columns after the first one in groups that fit next to it, so that a wide table becomes several."""
    groups: list[list[int]] = [[]]
    used = widths[0]
    for index, width in enumerate(widths[1:], start=1):
        if groups[-1] and used + GAP + width > available:
            groups.append([])
            used = widths[0]
        groups[-1].append(index)
        used += GAP + width
    return groups


class Printable:
    """Mixin that converts a report with `__rich__` to plain text, without colours and 160 columns wide."""

    def __str__(self) -> str:
        console = Console(width=160, no_color=True, highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


class SectionReport(Printable):
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
        """Return a figure of the report. Raises ActshiftError if matplotlib is not installed."""
        return panels(*self.figure_size, *self.plots)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return asdict(cast(Any, self))

    def __rich__(self) -> RenderableType:
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
    return Group(*[part for section in sections for part in ("", section)][1:])


def table(items: Iterable[T], *columns: tuple[str, Callable[[T], str]]) -> dict[str, Any]:
    """Return the `columns` and `rows` of a section with one row per item, from headings and functions of an item.

    >>> table([1.5, 2.0], ("value", str), ("half", lambda value: f"{value / 2:g}"))
    {'columns': ('value', 'half'), 'rows': (('1.5', '0.75'), ('2.0', '1'))}
    """
    headings, cells = zip(*columns, strict=True)
    return {"columns": headings, "rows": tuple(tuple(cell(item) for cell in cells) for item in items)}


def percent(share: float | None) -> str:
    """Return a fraction of 1 in percent, with one decimal close to 0 and to 1, and a dash for None.

    >>> percent(0.417), percent(0.9934), percent(None)
    ('42 %', '99.3 %', '–')
    """
    if share is None:
        return "–"
    return f"{100 * share:.{0 if 0.1 <= share < 0.985 or share in (0, 1) else 1}f} %"


def span(shares: Iterable[float]) -> str:
    """Return the range of several fractions in percent.

    >>> span([0.25, 0.5]), span([0.5])
    ('25 % to 50 %', '50 %')
    """
    values = list(shares)
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def blocks(numbers: Iterable[int]) -> str:
    """Return the names of blocks in a sentence, with neighbours as a range.

    >>> blocks([3]), blocks([0, 1, 2, 5])
    ('block 3', 'blocks 0 to 2 and 5')
    """
    groups = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in run] for _, run in groups]
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} {'to' if len(run) > 2 else 'and'} {run[-1]}" for run in runs]
    return f"block{'s' if sum(map(len, runs)) > 1 else ''} {listed(words)}"


def listed(words: Iterable[str]) -> str:
    """Return words as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def dash(value: float | None, spec: str, unit: str = "") -> str:
    """Return a number in a format and with a unit, and a dash for None.

    >>> dash(0.25, ".3f"), dash(2, ".3g", " %"), dash(None, ".3f")
    ('0.250', '2 %', '–')
    """
    return "–" if value is None else f"{value:{spec}}{unit}"
