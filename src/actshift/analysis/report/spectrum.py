"""What the oracle's shifts are like, as a section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from actshift.analysis.drawing import new_figure
from actshift.analysis.extract import OracleReport, picture
from actshift.analysis.report.section import Section, blocks, percent, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH = 0.9
PAYS = 0.02
"""A nonlinear map pays where it predicts two points of R² more than the linear one of its rank."""


def sections(report: OracleReport) -> Iterator[Section]:
    """Give the section that an oracle fills."""
    first = report.ranks[0]
    yield Section(
        key="oracle",
        title="How simple the fine-tuned model's shifts are",
        reading="Each line is a block, stronger for later ones: the share of the energy, the squared size, of the "
        "shifts that turn the base into the fine-tuned model which lies in their first directions.",
        advice=f"{_rank(report)}, {_kind(report)}.",
        alt=f"Lines by block, rising with the rank: one direction holds {_span(report, first)} of the energy, and "
        f"{report.ranks[-1]} hold {_span(report, report.ranks[-1])}."
        if first == 1
        else f"Lines by block, rising with the rank to {_span(report, report.ranks[-1])}.",
        columns=(
            "block",
            "size",
            *(f"energy r={rank}" for rank in report.ranks),
            "R² linear",
            f"R² linear r={report.nonlinear_rank}",
            f"R² SiLU r={report.nonlinear_rank}",
        ),
        rows=tuple(
            (
                str(one.layer),
                percent(one.size),
                *(percent(one.energy[rank]) for rank in report.ranks),
                f"{one.r2_linear:.3f}",
                f"{one.r2[report.nonlinear_rank]:.3f}",
                "–" if one.r2_nonlinear is None else f"{one.r2_nonlinear:.3f}",
            )
            for one in report.layers
        ),
        draw=lambda: _drawn(report),
        note=_outside(report),
    )


def _rank(report: OracleReport) -> str:
    holding = [rank for rank in report.ranks if min(one.energy[rank] for one in report.layers) >= ENOUGH]
    if holding:
        rank = holding[0]
        held = f"which holds {_span(report, rank)} of the energy"
        return f"Extract at rank {rank} (`actshift extract --rank {rank}`), {held}"
    last = report.ranks[-1]
    least = min(report.layers, key=lambda one: one.energy[last])
    return (
        f"Extract at more than rank {last}, or spend a budget unevenly (`actshift extract --budget`), as rank {last} "
        f"holds only {percent(least.energy[last])} of the energy in {blocks([least.layer])}"
    )


def _kind(report: OracleReport) -> str:
    rank = report.nonlinear_rank
    linear = sum(one.r2[rank] for one in report.layers) / len(report.layers)
    said = f"a linear map of rank {rank} predicts {percent(linear)} of the shifts' variance from the activations"
    curved = [one.r2_nonlinear for one in report.layers if one.r2_nonlinear is not None]
    if len(curved) < len(report.layers):
        return f"where {said}"
    mean = sum(curved) / len(curved)
    if mean > linear + PAYS:
        return f"and train it with SiLU rather than in closed form: {said}, and one with SiLU {percent(mean)}"
    return f"and keep it linear: {said}, and one with SiLU {percent(mean)}"


def _outside(report: OracleReport) -> str:
    reached = (
        f"With these shifts the base is {report.kl_oracle:.2g} nats a token (KL) from the fine-tuned model, and "
        f"{report.kl_base:.3g} without."
    )
    if not report.outside:
        return reached
    more = f" and {len(report.outside) - 1} more" if report.outside[1:] else ""
    return f"{reached} Changed outside the blocks, where no shift after a block reaches: {report.outside[0]}{more}."


def _span(report: OracleReport, rank: int) -> str:
    return span(one.energy[rank] for one in report.layers)


def _drawn(report: OracleReport) -> Figure:
    figure = new_figure(4.9, 3.1)
    picture.spectrum(figure.subplots(), report)
    return figure
