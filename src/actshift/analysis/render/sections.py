"""One result of an analysis as a section: a table, a figure and the words that explain them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from actshift.analysis.render.figures import Plot, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """One result of an analysis, for the terminal and for the HTML page.

    Attributes:
        key: Anchor of the section on the page, and stem of its image files.
        title: Heading.
        how_to_read: One sentence that explains the table and the figure.
        columns: Headings of the table.
        rows: Rows of the table. The first cell of a row names it.
        advice: Recommended next step; empty if the result suggests none.
        note: Facts that the table and the figure leave out; empty if nothing is missing.
        alt: Description of the figure for screen readers.
        plot: Function that draws the figure on axes; None for a table alone.
        size: Width and height of the figure in inches.
        shades: For each row, the colour strength (0 to 1) of every cell after the first; empty for no colours.
        preview: Number of rows that the terminal shows; None for all.
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
        """Return a new figure.

        Raises:
            ActshiftError: matplotlib is not installed.
        """
        assert self.plot is not None
        return panels(*self.size, self.plot)

    def to_dict(self) -> dict[str, Any]:
        """Return the words and the table, ready for JSON."""
        return {
            "key": self.key,
            "title": self.title,
            "reading": self.how_to_read,
            "advice": self.advice,
            "note": self.note,
            "alt": self.alt,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
        }


def table(items: Iterable[T], *columns: tuple[str, Callable[[T], str]]) -> dict[str, Any]:
    """Return the `columns` and `rows` of a section, with one row for each item.

    Args:
        items: The items.
        columns: Pairs of a heading and a function that returns the cell of an item.

    >>> table([1.5, 2.0], ("value", str), ("half", lambda value: f"{value / 2:g}"))
    {'columns': ('value', 'half'), 'rows': (('1.5', '0.75'), ('2.0', '1'))}
    """
    headings = tuple(heading for heading, _ in columns)
    return {"columns": headings, "rows": tuple(tuple(cell(item) for _, cell in columns) for item in items)}


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
    runs = [
        [number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ]
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
