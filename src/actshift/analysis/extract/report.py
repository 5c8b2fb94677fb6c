"""What an extraction found, and how close its adapter comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.render import (
    ELSEWHERE,
    OTHER,
    POST_BLOCK,
    Plain,
    Section,
    blocks,
    finish,
    new_figure,
    opacity,
    percent,
    span,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerOracle:
    """The oracle shift of one block.

    `size` is its root mean square over that of the activation, `energy` the share of Σ‖Δh‖² in its first directions,
    `r2` how much of its variance the best linear map of each rank predicts on held-out rows, `r2_linear` any linear
    map, and `r2_nonlinear` a low-rank one with SiLU.
    """

    layer: int
    size: float
    energy: dict[int, float]
    r2: dict[int, float]
    r2_linear: float
    r2_nonlinear: float | None


@dataclass(frozen=True)
class OracleReport(Plain):
    """The oracle of a fine-tuned model; KLs in nats a token, from the fine-tuned model's distributions.

    `outside` are the changed weights that no block holds: what they do, no shift after a block can, and `kl_oracle`
    is then more than 0.
    """

    layers: tuple[LayerOracle, ...]
    ranks: tuple[int, ...]
    nonlinear_rank: int
    kl_base: float
    kl_oracle: float
    outside: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)

    def figure(self) -> Figure:
        """Draw the spectrum and the predictability by layer (needs matplotlib)."""

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""

        return oracle_table(self)


@dataclass(frozen=True)
class LayerFit:
    """The closed-form adapter of one block: its rank, the ridge chosen on held-out rows, and its R² there."""

    layer: int
    rank: int
    ridge: float
    r2: float


@dataclass(frozen=True)
class ExtractReport(Plain):
    """An adapter in place of a fine-tuned checkpoint.

    `kl` holds nats a token from the fine-tuned model, by what is compared with it: base, oracle, linear (every rank),
    closed form, and distilled. `parameters` are the adapter's, `checkpoint` the fine-tuned model's.
    """

    model: str
    finetuned: str
    tokens: int
    parameters: int
    checkpoint: int
    layers: tuple[LayerFit, ...]
    kl: dict[str, float]
    distill_steps: int
    oracle: OracleReport

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)

    def figure(self) -> Figure:
        """Draw the oracle's spectrum and predictability by layer (needs matplotlib)."""
        return self.oracle.figure()

    def __rich__(self) -> RenderableType:
        """Return the tables for a terminal."""

        return extract_table(self)


NAMES = {
    "base": "untouched base",
    "oracle": "exact oracle",
    "linear": "linear, every rank",
    "closed_form": "this adapter, closed form",
    "distilled": "this adapter, distilled",
}


def oracle_table(report: OracleReport) -> RenderableType:
    """Return a row a layer: the shift's size, spectrum and predictability."""
    few = [rank for rank in report.ranks if rank in (1, 8, 32)] or list(report.ranks)
    names = ["size", *(f"energy r={rank}" for rank in few), *(f"R² r={rank}" for rank in few)]
    names += ["R² linear", f"R² SiLU r={report.nonlinear_rank}"]
    table = Table("layer", *(Column(name, justify="right") for name in names), box=None, pad_edge=False)
    for one in report.layers:
        shares = [one.size, *(one.energy[rank] for rank in few)]
        fits = [*(one.r2[rank] for rank in few), one.r2_linear, one.r2_nonlinear]
        table.add_row(
            str(one.layer),
            *(f"{100 * share:.1f} %" for share in shares),
            *("" if value is None else f"{value:.3f}" for value in fits),
        )
    return Group(table, *_outside(report))


def extract_table(report: ExtractReport) -> RenderableType:
    """Return the oracle's table, the fit of each layer, and how far from the fine-tuned model each step is."""
    fits = Table(
        "layer", *(Column(name, justify="right") for name in ("rank", "ridge", "R²")), box=None, pad_edge=False
    )
    for one in report.layers:
        fits.add_row(str(one.layer), str(one.rank), f"{one.ridge:g}", f"{one.r2:.3f}")
    steps = Table("predictions by", Column("KL, nats each", justify="right"), box=None, pad_edge=False)
    for name, value in report.kl.items():
        steps.add_row(NAMES[name], f"{value:.3g}")
    size = (
        f"{report.parameters:,} parameters in place of {report.checkpoint:,}, "
        f"{report.checkpoint / report.parameters:,.1f} times fewer; {report.tokens:,} tokens of text"
    )
    return Group(report.oracle, "", fits, "", steps, "", size)


def _outside(report: OracleReport) -> list[str]:
    if not report.outside:
        return []
    more = f" and {len(report.outside) - 1} more" if report.outside[1:] else ""
    return [f"Changed outside the blocks, where no shift after a block reaches: {report.outside[0]}{more}."]


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
        note=_outside_note(report),
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


def _outside_note(report: OracleReport) -> str:
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
    spectrum(figure.subplots(), report)
    return figure
