"""An oracle as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.analysis.drawing import ELSEWHERE, OTHER, POST_BLOCK, finish, new_figure, opacity
from actshift.analysis.extract.report import OracleReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(report: OracleReport) -> Figure:
    """Draw the share of energy by rank, and R² by layer.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    spectrum(left, report)
    predictability(right, report)
    return figure


def spectrum(axes: Any, report: OracleReport) -> None:
    """Draw how much of the oracle's energy its first directions hold, a line a layer, darker for later ones."""
    for one in report.layers:
        full = opacity(one.layer, len(report.layers))
        axes.plot(
            report.ranks, list(one.energy.values()), "o-", color=POST_BLOCK, alpha=full, markersize=3, linewidth=1
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(report.ranks, [str(rank) for rank in report.ranks])
    axes.set_ylim(0, 1.03)
    finish(axes, "rank", "share of the energy", "Spectrum of the oracle shifts")


def predictability(axes: Any, report: OracleReport) -> None:
    """Draw how much of the oracle a linear and a nonlinear map of the activation predict, by layer."""
    layers, rank = [one.layer for one in report.layers], report.nonlinear_rank
    axes.plot(layers, [one.r2_linear for one in report.layers], "o-", color=ELSEWHERE, label="linear", markersize=3)
    if rank in report.ranks:
        values = [one.r2[rank] for one in report.layers]
        axes.plot(layers, values, "o--", color=ELSEWHERE, label=f"linear r={rank}", markersize=3, linewidth=1)
    values = [one.r2_nonlinear for one in report.layers]
    if None not in values:
        axes.plot(layers, values, "o-", color=OTHER, label=f"SiLU r={rank}", markersize=3, linewidth=1)
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylim(min(0, *axes.get_ylim()), 1.03)
    finish(axes, "block", "R² on held-out rows", "Predictability of the oracle shifts")
