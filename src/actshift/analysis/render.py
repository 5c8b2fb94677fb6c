"""The page: one HTML file that needs nothing else, and no network."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from actshift.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


POST_BLOCK, ELSEWHERE, WEIGHTS, OTHER = "#c2410c", "#2563eb", "#6b7280", "#0f766e"
"""Steering after the block, steering at another site, an update of weights, and a second kind of any of them."""
INK, EDGE, ON_COLOUR = "#111827", "#9ca3af", "#fffffe"
"""Text, lines of axes, and text on a full colour, which is told from the white of a page."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, which needs no display.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(width, height), dpi=150, layout="constrained")
    require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    return figure


def finish(axes: Any, x: str, y: str, title: str = "") -> None:
    """Name the axes, and take away what says nothing."""
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)
    axes.tick_params(labelsize=8.5, labelcolor=INK, color=EDGE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(EDGE)


def opacity(place: int, places: int) -> float:
    """Return how opaque the line of one layer among several is: later ones more.

    >>> opacity(0, 3), opacity(2, 3)
    (0.25, 1.0)
    """
    return 0.25 + 0.75 * place / max(1, places - 1)


COLUMNS = 160


class Plain:
    """Mixed into what prints as tables on a terminal: as text it is the same, without colours, wide enough for them."""

    def __str__(self) -> str:
        console = Console(width=COLUMNS, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


ProgressCallback = Callable[[str, int, int], None]


def progress_counter(heard: ProgressCallback, phase: str, total: int) -> Callable[[], None]:
    """Return a function that tells `heard` of one more step of `phase` each time that it is called.

    >>> step = progress_counter(lambda phase, done, total: print(f"{phase}: {done} of {total}"), "Reading", 2)
    >>> step()
    Reading: 1 of 2
    """
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        heard(phase, done, total)

    return one


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


COLOURS = {
    INK: "ink",
    "#000000": "ink",
    EDGE: "edge",
    ON_COLOUR: "on-colour",
    POST_BLOCK: "post-block",
    ELSEWHERE: "elsewhere",
    WEIGHTS: "weights",
    OTHER: "other",
}
"""The page's variable for each colour that figures are drawn in."""
POINTS = 96 / 72
_COLOUR = re.compile("|".join(COLOURS))
_FONT = re.compile(r"'DejaVu Sans'[^;]*")
_REFERENCE = re.compile(r"#([\w.-]+)")
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def inline(figure: Figure, key: str, title: str, alt: str) -> str:
    """Return a figure as an `<svg>` element that is as wide as its place and no wider than it was drawn.

    Names in it begin with `key`, so that several figures go into one page; `title` and `alt` are what is read aloud.
    """
    root = ET.fromstring(_drawn(figure))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    names = {one.get("id") for one in root.iter()}
    used = {name for one in root.iter() for value in one.attrib.values() for name in _REFERENCE.findall(value)} & names
    for one in root.iter():
        one.tag = one.tag.removeprefix(_SVG)
        one.attrib = {
            name.removeprefix(_LINK): _themed(value, key, used)
            for name, value in one.attrib.items()
            if name != "id" or value in used
        }
    width = float(root.attrib["width"].removesuffix("pt")) * POINTS
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-alt",
        "style": f"max-width: {width:.0f}px",
    }
    for name, text in (("desc", alt), ("title", title)):
        words = ET.Element(name, {"id": f"{key}-{'alt' if name == 'desc' else name}"})
        words.text = text
        root.insert(0, words)
    return ET.tostring(root, encoding="unicode")


def _drawn(figure: Figure) -> bytes:
    settings = {"svg.fonttype": "none", "svg.hashsalt": "actshift"}  # text as text, and the same file twice
    with require("matplotlib", "plot").rc_context(settings), io.BytesIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return file.getvalue()


def _themed(value: str, key: str, used: set[str]) -> str:
    """Point names to this figure's, and colours and fonts to the page's."""
    if value in used:
        return f"{key}-{value}"
    value = _REFERENCE.sub(lambda found: f"#{key}-{found[1]}" if found[1] in used else found[0], value)
    value = _COLOUR.sub(lambda found: f"var(--{COLOURS[found[0]]})", value)
    return _FONT.sub("system-ui, sans-serif", value)


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<link rel="icon" href="data:,"/>
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<dl>{about}</dl>
</header>
<nav aria-label="Figures"><ul>{links}</ul></nav>
<main>
{sections}
</main>
<footer>{footer}</footer>
</body>
</html>
"""

SECTION = """<section id="{key}" aria-labelledby="{key}-head">
<h2 id="{key}-head">{title}</h2>
<figure>{svg}</figure>
<div class="words"><p><b>How to read it</b> {reading}</p><p><b>What to do</b> {advice}</p>{note}</div>
<details><summary>The same as a table</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Table: {title}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div></details>
</section>"""


def page(title: str, about: Mapping[str, str], sections: Sequence[Section], made: Mapping[str, str]) -> str:
    """Return the page; it is well-formed XML, too. `about` and `made` are told above and below the sections."""
    return PAGE.format(
        title=escape(title),
        style=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
        about="".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in about.items()),
        links="".join(f'<li><a href="#{one.key}">{escape(one.title)}</a></li>' for one in sections),
        sections="\n".join(map(_section, sections)),
        footer="<br/>".join(f"{escape(name)}: {escape(fact)}" for name, fact in made.items()),
    )


def _section(one: Section) -> str:
    return SECTION.format(
        key=one.key,
        title=escape(one.title),
        svg=inline(one.draw(), one.key, one.title, one.alt),
        reading=_marked(one.reading),
        advice=_marked(one.advice),
        note=f'<p class="note">{_marked(one.note)}</p>' if one.note else "",
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in one.columns),
        rows="\n".join(map(_row, one.rows)),
    )


def _marked(text: str) -> str:
    """Escape a text, hold numbers and their signs together, and set what stands in `backticks` as code."""
    text = re.sub(r" (?=[%±])|(?<=±) ", "\u00a0", text)
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(cells: Sequence[str]) -> str:
    first, *rest = map(escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
