"""An equivalence report as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.analysis.drawing import ELSEWHERE, OTHER, POST_BLOCK, WEIGHTS, finish, new_figure, opacity
from actshift.analysis.equivalence.report import EquivalenceReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(report: EquivalenceReport) -> Figure:
    """Draw the first-order remainder by scale, what each site could copy by layer, and the skip's share by layer.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(11, 3.4)
    left, middle, right = figure.subplots(1, 3)
    remainder(left, report)
    shares(middle, report)
    skip(right, report)
    return figure


def remainder(axes: Any, report: EquivalenceReport) -> None:
    """Draw the relative remainder of each layer's MLP over the scale of the update, both on log scales."""
    found = [one for one in report.layers if one.mlp is not None and any(one.mlp.left)]
    for one in found:
        assert one.mlp is not None
        full = opacity(one.layer, report.layers[-1].layer + 1)
        axes.plot(one.mlp.scales, one.mlp.relative, "o-", color=POST_BLOCK, alpha=full, markersize=3, linewidth=1)
    if found:
        axes.set(xscale="log", yscale="log")
    finish(axes, "scale of the update", "remainder / shift", "First-order remainder of the MLP, by layer")


def shares(axes: Any, report: EquivalenceReport) -> None:
    """Draw the share of the update's shift that steering at each site could copy, by layer."""
    layers, rank = [one.layer for one in report.layers], report.ranks[-1]
    lines = {
        f"post-block r={rank}": (POST_BLOCK, [one.post_block[rank] for one in report.layers]),
        f"post-MLP r={rank}": (ELSEWHERE, [one.post_mlp[rank] if one.post_mlp else None for one in report.layers]),
        "pre-MLP, any shift": (OTHER, [one.pre_mlp for one in report.layers]),
    }
    for label, (colour, values) in lines.items():
        if None not in values:
            axes.plot(layers, values, "o-", color=colour, label=label, markersize=3, linewidth=1)
    axes.set_ylim(-0.03, 1.03)
    axes.legend(fontsize=8, frameon=False)
    finish(axes, "block", "share of the shift", "What steering could copy")


def skip(axes: Any, report: EquivalenceReport) -> None:
    """Draw the share of the block's output that the skip carries, by layer."""
    found = [(one.layer, one.skip_share) for one in report.layers if one.skip_share is not None]
    axes.bar([layer for layer, _ in found], [share for _, share in found], color=WEIGHTS, width=0.7)
    axes.set_ylim(0, 1)
    finish(axes, "block", "‖skip‖ / (‖skip‖ + ‖MLP‖)", "The skip's share of the block's output")
