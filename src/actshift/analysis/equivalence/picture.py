"""An equivalence report as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.analysis.equivalence.report import EquivalenceReport
from actshift.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POST_BLOCK, POST_MLP, PRE_MLP = "#c2410c", "#2563eb", "#6b7280"


def draw(report: EquivalenceReport) -> Figure:
    """Draw the first-order remainder by scale, what each site could copy by layer, and the skip's share by layer.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(11, 3.4), dpi=150, layout="constrained")
    require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
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
        fade = 0.25 + 0.75 * one.layer / max(1, report.layers[-1].layer)
        axes.plot(one.mlp.scales, one.mlp.relative, "o-", color=POST_BLOCK, alpha=fade, markersize=3, linewidth=1)
    if found:
        axes.set(xscale="log", yscale="log")
    _finish(axes, "scale of the update", "remainder / shift", "First-order remainder of the MLP, by layer")


def shares(axes: Any, report: EquivalenceReport) -> None:
    """Draw the share of the update's shift that steering at each site could copy, by layer."""
    layers, rank = [one.layer for one in report.layers], report.ranks[-1]
    lines = {
        f"post-block r={rank}": (POST_BLOCK, [one.post_block[rank] for one in report.layers]),
        f"post-MLP r={rank}": (POST_MLP, [one.post_mlp[rank] if one.post_mlp else None for one in report.layers]),
        "pre-MLP, any shift": (PRE_MLP, [one.pre_mlp for one in report.layers]),
    }
    for label, (colour, values) in lines.items():
        if None not in values:
            axes.plot(layers, values, "o-", color=colour, label=label, markersize=3, linewidth=1)
    axes.set_ylim(-0.03, 1.03)
    axes.legend(fontsize=7, frameon=False)
    _finish(axes, "block", "share of the shift", "What steering could copy")


def skip(axes: Any, report: EquivalenceReport) -> None:
    """Draw the share of the block's output that the skip carries, by layer."""
    found = [(one.layer, one.skip_share) for one in report.layers if one.skip_share is not None]
    axes.bar([layer for layer, _ in found], [share for _, share in found], color=PRE_MLP, width=0.7)
    axes.set_ylim(0, 1)
    _finish(axes, "block", "‖skip‖ / (‖skip‖ + ‖MLP‖)", "The skip's share of the block's output")


def _finish(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
