"""A figure with its words and its table, and how figures are written in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """One figure: how to read it, what to do, what it shows in words, and the same as a table.

    `key` is its anchor on the page and the name of its files; `draw` makes the figure anew. `note` says what is not in
    the figure, where there is something.
    """

    key: str
    title: str
    reading: str
    advice: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    draw: Callable[[], Figure]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the words and the table, ready for JSON."""
        words = {name: getattr(self, name) for name in ("key", "title", "reading", "advice", "note", "alt")}
        return {**words, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}


def percent(share: float | None) -> str:
    """Return a share of 1 in percent, with a digit after the point where it is near 0 or 1.

    >>> percent(0.417), percent(0.9934), percent(None)
    ('42 %', '99.3 %', '–')
    """
    if share is None:
        return "–"
    return f"{100 * share:.{0 if 0.1 <= share < 0.985 or share in (0, 1) else 1}f} %"


def span(shares: Iterable[float]) -> str:
    """Return the range of shares in percent.

    >>> span([0.25, 0.5]), span([0.5])
    ('25 % to 50 %', '50 %')
    """
    values = list(shares)
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def blocks(numbers: Iterable[int]) -> str:
    """Name blocks in words, neighbours as a range.

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
