"""Show the sections of a report as one HTML page that needs no other file and no network."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape as escape_html
from pathlib import Path

from actshift.analysis.figures import EDGE, ELSEWHERE, INK, ON_COLOUR, OTHER, POST_BLOCK, WEIGHTS
from actshift.analysis.sections import Section
from actshift.errors import printable, require

# The CSS variable of the page that replaces each colour of a figure.
_NEUTRAL = {INK: "ink", "#000000": "ink", EDGE: "edge", ON_COLOUR: "on-colour"}
COLOURS = _NEUTRAL | {POST_BLOCK: "post-block", ELSEWHERE: "elsewhere", WEIGHTS: "weights", OTHER: "other"}
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def to_html(title: str, about: Mapping[str, str], sections: Sequence[Section], made: Mapping[str, str]) -> str:
    """Return the page, which is also well-formed XML, with the facts `about` in the header and `made` in the footer.

    Raises ActshiftError if matplotlib is not installed.
    """
    return _file("page.html").format(
        title=escape(title),
        style=_file("page.css"),
        about="".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in about.items()),
        links="".join(f'<li><a href="#{section.key}">{escape(section.title)}</a></li>' for section in sections),
        sections="\n".join(map(_section, sections)),
        footer="<br/>".join(f"{escape(name)}: {escape(fact)}" for name, fact in made.items()),
    )


def escape(text: str) -> str:
    """Escape a text for HTML and XML, which allow no control characters."""
    return escape_html(printable(text))


@cache
def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    words = f"<p><b>How to read it</b> {_marked_up(section.how_to_read)}</p>"
    words += f"<p><b>What to do</b> {_marked_up(section.advice)}</p>" if section.advice else ""
    words += f'<p class="note">{_marked_up(section.note)}</p>' if section.note else ""
    return (
        _file("section.html")
        .rstrip()
        .format(
            key=section.key,
            title=escape(section.title),
            svg=_svg(section) if section.plot else "",
            words=words,
            head="".join(f'<th scope="col">{escape(name)}</th>' for name in section.columns),
            rows="\n".join(map(_row, section.rows)),
        )
    )


def _marked_up(text: str) -> str:
    """Escape a text, keep numbers and their units on one line, and turn `backticks` into code."""
    text = re.sub(r" (?=[%±])|(?<=±) ", "\u00a0", text)
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _row(cells: Sequence[str]) -> str:
    first, *rest = map(escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'


def _svg(section: Section) -> str:
    """Return the figure of a section as an `<svg>` element that scales with the page, up to the size of the figure."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": f"actshift {section.key}"}  # reproducible, with text as text
    with require("matplotlib", "plot").rc_context(settings), io.BytesIO() as file:
        section.draw().savefig(file, format="svg", transparent=True, metadata={"Date": None})
        root = ET.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in [*parent.findall(f"{_SVG}metadata"), *parent.findall(f"{_SVG}style")]:
            parent.remove(child)
    # Ids must be unique on the page: those that the figure refers to are salted hashes, and all others are removed.
    values = [value for element in root.iter() for value in element.attrib.values()]
    referenced = {name for value in values for name in re.findall(r"#([\w.-]+)", value)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        kept = {name: value for name, value in element.attrib.items() if name != "id" or value in referenced}
        element.attrib = {name.removeprefix(_LINK): _themed(value) for name, value in kept.items()}
    pixels = float(root.attrib["width"].removesuffix("pt")) * 96 / 72
    labels = {"aria-labelledby": f"{section.key}-title {section.key}-alt", "style": f"max-width: {pixels:.0f}px"}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", **labels}
    for tag, suffix, text in (("desc", "alt", section.alt), ("title", "title", section.title)):
        label = ET.Element(tag, {"id": f"{section.key}-{suffix}"})
        label.text = printable(text)
        root.insert(0, label)
    return ET.tostring(root, encoding="unicode")


def _themed(value: str) -> str:
    """Replace the colours and fonts in an attribute by those of the page."""
    value = re.sub("|".join(COLOURS), lambda match: f"var(--{COLOURS[match[0]]})", value)
    return re.sub(r"'DejaVu Sans'[^;]*", "system-ui, sans-serif", value)
