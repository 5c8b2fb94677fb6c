"""The redundancy of a joint adapter, as a section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from actshift.analysis.drawing import ELSEWHERE, INK, POST_BLOCK, finish, new_figure
from actshift.analysis.redundancy import Overlap, Redundancy
from actshift.analysis.report.section import Section, blocks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEARLY = 2
"""An overlap of twice what chance gives is no chance: hidden states alone make it somewhat more than random."""
KINDS: dict[str, tuple[str, str]] = {
    "read": (POST_BLOCK, "what steering reads, LoRA writes"),
    "shift": (ELSEWHERE, "the shifts of each alone"),
}


def sections(report: Redundancy) -> Iterator[Section]:
    """Give the section that a joint adapter fills; where nothing can be compared there is none."""
    if report.read is None and report.shift is None:
        return
    yield Section(
        key="halves",
        title="Whether the two halves do the same thing",
        reading="Each bar is an overlap in one block, the mean squared cosine of principal angles from 0 to 1: of what "
        "steering reads with what LoRA writes, and of the shifts that each makes alone; a dash is what chance gives.",
        advice=_advice(report),
        alt=f"Bars by block: reading and writing overlap by {_figure(report.read)} on average, the shifts of the two "
        f"halves by {_figure(report.shift)}.",
        columns=("block", "read", "chance", "shifts", "chance", "cosine by token"),
        rows=tuple((str(one.block), *_pair(one.read), *_pair(one.shift), _figure(one.cosine)) for one in report.blocks),
        draw=lambda: draw(report),
    )


def draw(report: Redundancy) -> Figure:
    """Draw both overlaps by block, with what two random subspaces of their sizes would have.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(4.9, 3.1)
    axes: Any = figure.subplots()
    for side, (kind, (colour, label)) in zip((-0.2, 0.2), KINDS.items(), strict=True):
        found = [(one.block + side, overlap) for one in report.blocks if (overlap := getattr(one, kind)) is not None]
        axes.bar([at for at, _ in found], [one.mean for _, one in found], width=0.36, color=colour, label=label)
        chances = [one.chance for _, one in found]
        edges = [[at + half for at, _ in found] for half in (-0.18, 0.18)]
        axes.hlines(chances, *edges, color=INK, linewidth=1.5, label="chance" if side > 0 else None)
    axes.set_xticks([one.block for one in report.blocks])
    axes.set_ylim(0, 1)
    finish(axes, "block", "overlap")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _advice(report: Redundancy) -> str:
    read, shift = ([getattr(one, kind) for one in report.blocks if getattr(one, kind)] for kind in KINDS)
    said = [*([_reading(read)] if read else []), *([_shifting(shift, report)] if shift else [])]
    words = "; ".join(said)
    return f"{words[0].upper()}{words[1:]}."


def _reading(found: Sequence[Overlap]) -> str:
    mean, chance = _means(found)
    measured = f"as steering reads {mean:.3f} of what LoRA writes, where {chance:.2f} would be chance"
    if mean > CLEARLY * chance:
        return f"train again with `--orthogonality read`, {measured}"
    return f"leave the rule as it is, {measured}"


def _shifting(found: Sequence[Overlap], report: Redundancy) -> str:
    mean, chance = _means(found)
    if mean <= CLEARLY * chance:
        return f"keep both halves, whose shifts overlap by {mean:.2f}, where {chance:.2f} would be chance"
    most = max(report.blocks, key=lambda one: one.shift.mean if one.shift else 0.0)
    return (
        f"try each half alone with `actshift eval --half`, as their shifts overlap by {mean:.2f}, most in "
        f"{blocks([most.block])}, where {chance:.2f} would be chance"
    )


def _means(found: Sequence[Overlap]) -> tuple[float, float]:
    return fmean(one.mean for one in found), fmean(one.chance for one in found)


def _pair(overlap: Overlap | None) -> tuple[str, str]:
    return ("–", "–") if overlap is None else (f"{overlap.mean:.3f}", f"{overlap.chance:.3f}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
