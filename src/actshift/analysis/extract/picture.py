"""An oracle as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.analysis.extract.report import OracleReport
from actshift.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENERGY, LINEAR, NONLINEAR = "#c2410c", "#2563eb", "#0f766e"


def draw(report: OracleReport) -> Figure:
    """Draw the share of energy by rank, and R² by layer.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(8, 3.2), dpi=150, layout="constrained")
    require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    spectrum(left, report)
    predictability(right, report)
    return figure


def spectrum(axes: Any, report: OracleReport) -> None:
    """Draw how much of the oracle's energy its first directions hold, a line a layer, darker for later ones."""
    for one in report.layers:
        fade = 0.25 + 0.75 * one.layer / max(1, len(report.layers) - 1)
        axes.plot(report.ranks, list(one.energy.values()), "o-", color=ENERGY, alpha=fade, markersize=3, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(report.ranks, [str(rank) for rank in report.ranks])
    axes.set_ylim(0, 1.03)
    _finish(axes, "rank", "share of the energy", "Spectrum of the oracle shifts")


def predictability(axes: Any, report: OracleReport) -> None:
    """Draw how much of the oracle a linear and a nonlinear map of the activation predict, by layer."""
    layers, rank = [one.layer for one in report.layers], report.nonlinear_rank
    axes.plot(layers, [one.r2_linear for one in report.layers], "o-", color=LINEAR, label="linear", markersize=3)
    if rank in report.ranks:
        values = [one.r2[rank] for one in report.layers]
        axes.plot(layers, values, "o--", color=LINEAR, label=f"linear r={rank}", markersize=3, linewidth=1)
    values = [one.r2_nonlinear for one in report.layers]
    if None not in values:
        axes.plot(layers, values, "o-", color=NONLINEAR, label=f"SiLU r={rank}", markersize=3, linewidth=1)
    axes.legend(fontsize=7, frameon=False)
    axes.set_ylim(min(0, *axes.get_ylim()), 1.03)
    _finish(axes, "block", "R² on held-out rows", "Predictability of the oracle shifts")


def _finish(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
