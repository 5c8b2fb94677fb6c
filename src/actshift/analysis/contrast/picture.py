"""A contrast as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actshift.analysis.contrast.report import ContrastReport
from actshift.analysis.drawing import ELSEWHERE, POST_BLOCK, WEIGHTS, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(report: ContrastReport) -> Figure:
    """Draw how well each block's vector tells the two sides apart, and how long it is beside the activations.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    layers = [one.layer for one in report.layers]
    left.axhline(0.5, color=WEIGHTS, linewidth=1, linestyle="--")
    left.plot(layers, [one.separation for one in report.layers], "o-", color=POST_BLOCK, markersize=3)
    left.set_ylim(min(0.45, *(one.separation for one in report.layers)), 1.03)
    finish(left, "block", "rows on their side", "Separation of rows left out (dashed: chance)")
    right.plot(layers, [one.relative for one in report.layers], "o-", color=ELSEWHERE, markersize=3)
    right.set_ylim(bottom=0)
    finish(right, "block", "‖v‖ / ‖h‖", "Length of the vector")
    return figure
