"""The look of all figures: colours by what they stand for, and plain axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.extras import require

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
