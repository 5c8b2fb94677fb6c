"""What `equivalence` found, as sections: the skip's share, and what the first order misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from actshift.analysis.drawing import new_figure
from actshift.analysis.equivalence import EquivalenceReport, picture
from actshift.analysis.report.section import Section, blocks, listed, percent, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HALF, CLOSE, ALIKE = 0.5, 0.1, 0.02
"""Over half of an output is most of it, a remainder under a tenth is close, and shares within two points are alike."""


def sections(report: EquivalenceReport) -> Iterator[Section]:
    """Give the sections that a comparison of weights fills; a model whose MLPs are not known fills none."""
    if any(one.skip_share is not None for one in report.layers):
        yield _skip(report)
    if any(one.mlp is not None and any(one.mlp.left) for one in report.layers):
        yield _remainder(report)


def _skip(report: EquivalenceReport) -> Section:
    shares = {one.layer: one.skip_share for one in report.layers if one.skip_share is not None}
    rank = report.ranks[-1]
    return Section(
        key="skip",
        title="What the skip carries",
        reading="Each bar is the mean of ‖skip‖ / (‖skip‖ + ‖MLP‖) in a block's output: what steering after the MLP "
        "does not see, and steering after the block does.",
        advice=_seen(report, shares),
        alt=f"Bars by block: the skip carries {span(shares.values())} of the block's output.",
        columns=("block", "skip's share", f"after the MLP, r={rank}", f"after the block, r={rank}", "before the MLP"),
        rows=tuple(
            (
                str(one.layer),
                percent(one.skip_share),
                percent(one.post_mlp[rank] if one.post_mlp else None),
                percent(one.post_block[rank]),
                percent(one.pre_mlp),
            )
            for one in report.layers
        ),
        draw=lambda: _drawn(picture.skip, report),
    )


def _seen(report: EquivalenceReport, shares: dict[int, float]) -> str:
    rank = report.ranks[-1]
    most = [layer for layer, share in shares.items() if share > HALF]
    carried = (
        f"the skip carries more than half of the output in {blocks(most)}, up to {percent(max(shares.values()))}"
        if most
        else f"the MLP carries more than half in every block, the skip {percent(max(shares.values()))} at most"
    )
    both = [(one.post_block[rank], one.post_mlp[rank]) for one in report.layers if one.post_mlp]
    if not both:
        return f"Steer after the {'block' if most else 'MLP'}: {carried}."
    block, mlp = (sum(one) / len(both) for one in zip(*both, strict=True))
    copied = (
        f"an affine map of rank {rank} copies {percent(block)} of this update's shift after the block and "
        f"{percent(mlp)} after the MLP, on held-out rows"
    )
    if abs(block - mlp) < ALIKE:
        return f"Choose between block and MLP by training after both: {copied}, though {carried}."
    if block > mlp:
        return f"Steer after the block: {copied}, and {carried}."
    return f"Try steering after the MLP: {copied}, though {carried}."


def _remainder(report: EquivalenceReport) -> Section:
    found = {one.layer: one.mlp for one in report.layers if one.mlp is not None and any(one.mlp.left)}
    scales = next(iter(found.values())).scales
    slopes = [one.slope for one in found.values() if one.slope is not None]
    fall = f", which here is the power {_range(slopes)}" if slopes else ""
    attention = {one.layer: one.attention.relative[-1] for one in report.layers if one.attention is not None}
    full = [one.relative[-1] for one in found.values()]
    return Section(
        key="remainder",
        title="How far the first order holds",
        reading="Each line is the MLP of a block, stronger for later ones: what the prediction from ΔW misses, over "
        f"the shift, as the update is scaled; where the theory holds, the miss itself falls with the square{fall}.",
        advice=_trusted(report, scales),
        alt=f"Lines by block on log axes: the remainder falls with the scale, and is {span(full)} of the shift at full "
        "size.",
        columns=("block", *(f"scale {scale:g}" for scale in scales), "power", f"attention, scale {scales[-1]:g}"),
        rows=tuple(
            (
                str(layer),
                *(f"{100 * value:.2g} %" for value in one.relative),
                "–" if one.slope is None else f"{one.slope:.2f}",
                percent(attention.get(layer)),
            )
            for layer, one in found.items()
        ),
        draw=lambda: _drawn(picture.remainder, report),
    )


def _range(values: list[float]) -> str:
    return " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values))))


def _trusted(report: EquivalenceReport, scales: tuple[float, ...]) -> str:
    """Say up to which share of the update first-order figures are close, in the MLP and in the attention."""
    branches = {
        name: [one for layer in report.layers if (one := getattr(layer, kind)) is not None and any(one.left)]
        for kind, name in (("mlp", "MLPs'"), ("attention", "attention's"))
    }
    branches = {name: lines for name, lines in branches.items() if lines}
    full = listed(f"{span(one.relative[-1] for one in lines)} of the {name} shift" for name, lines in branches.items())
    missed = f"at its full size the first order misses {full}"
    worst = [
        max(values) for values in zip(*(one.relative for lines in branches.values() for one in lines), strict=True)
    ]
    held = [scale for scale, miss in zip(scales, worst, strict=True) if miss < CLOSE]
    if worst[-1] < CLOSE:
        return f"Trust first-order figures for an update of this size: {missed}."
    if not held:
        return f"Trust first-order figures for a direction alone, and train to know the rest: {missed}."
    return (
        f"Trust first-order figures for the first {percent(max(held))} of this update, where they miss less than a "
        f"tenth in every block, and train to know the rest: {missed}."
    )


def _drawn(draw: Callable[[Any, EquivalenceReport], None], report: EquivalenceReport) -> Figure:
    figure = new_figure(4.9, 3.1)
    draw(figure.subplots(), report)
    return figure
