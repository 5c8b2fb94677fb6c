"""Colours and helpers for matplotlib figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, printable, require
from actshift.files import atomic_path, check_writable, is_stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POST_BLOCK, ELSEWHERE, WEIGHTS, OTHER = "#c2410c", "#2563eb", "#6b7280", "#0f766e"
"""Colours of steering after the block, steering at another site, a weight update, and a second variant of any."""
DOTS = {"markersize": 3, "linewidth": 1}  # style of thin lines with dots
INK, EDGE, ON_COLOUR = "#111827", "#9ca3af", "#fffffe"
"""Colours of text, axis lines, and text on a dark cell. The last differs from white, the colour of the page."""

Plot = Callable[[Any], None]
"""A function that draws on matplotlib axes."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without a display. Raise ActshiftError without matplotlib."""
    figure = require("matplotlib.figure", "plot").Figure(figsize=(width, height), dpi=150, layout="constrained")
    require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    return figure


def figure_text(text: str) -> str:
    """Return a text in which dollar signs and control characters are escaped for matplotlib."""
    return printable(text).replace("$", r"\$")


def check_figure(path: Path) -> None:
    """Raise ActshiftError unless a figure can be saved at `path`. Call it before a long computation."""
    if _format(path) is None and not is_stream(path):
        raise ActshiftError(f"A figure cannot be saved as {path.name}. End the name in .png, .svg or .pdf.")
    check_writable(path)


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure atomically in the format of the name's suffix; without one, as to /dev/stdout, as PNG."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=_format(path) or "png")


def _format(path: Path) -> str | None:
    suffix = path.suffix[1:].lower()
    return suffix if suffix in require("matplotlib.backend_bases", "plot").FigureCanvasBase.filetypes else None


def panels(width: float, height: float, *plots: Plot, ratios: Sequence[float] | None = None) -> Figure:
    """Return a figure of a size in inches with the plots side by side, in panels of equal or of relative widths."""
    figure = new_figure(width, height)
    all_axes: Any = figure.subplots(1, len(plots), squeeze=False, width_ratios=ratios)
    for axes, plot in zip(all_axes[0], plots, strict=True):
        plot(axes)
    return figure


def label_axes(axes: Any, x: str, y: str, title: str = "") -> None:
    """Label the axes and remove the top and right border."""
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)
    axes.tick_params(labelsize=8.5, labelcolor=INK, color=EDGE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(EDGE)


def opacity(index: int, count: int) -> float:
    """Return the opacity of line `index` among `count` lines. Later lines are more opaque.

    >>> opacity(0, 3), opacity(2, 3)
    (0.25, 1.0)
    """
    return 0.25 + 0.75 * index / max(1, count - 1)
