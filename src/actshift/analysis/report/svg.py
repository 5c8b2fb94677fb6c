"""A figure as SVG inside a page: its own names, the page's fonts, and colours that follow light and dark."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from actshift.analysis.drawing import EDGE, ELSEWHERE, INK, ON_COLOUR, OTHER, POST_BLOCK, WEIGHTS
from actshift.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
