"""What a comparison of a weight update with activation shifts found, by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.render import (
    ELSEWHERE,
    OTHER,
    POST_BLOCK,
    WEIGHTS,
    Plain,
    Section,
    blocks,
    finish,
    listed,
    new_figure,
    opacity,
    percent,
    span,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SMALL = 0.1
"""Up to this scale of an update the slope of the remainder is taken; above it, further orders show."""


@dataclass(frozen=True)
class Remainder:
    """A shift, and what its first-order prediction leaves of it, as the cause is scaled by `scales`.

    `shift`, `predicted` and `left` are root mean squares over tokens of the norms, one for each scale; `share` is the
    shift at the largest scale over the output that it shifts.
    """

    scales: tuple[float, ...]
    shift: tuple[float, ...]
    predicted: tuple[float, ...]
    left: tuple[float, ...]
    share: float

    @property
    def relative(self) -> tuple[float, ...]:
        """The remainder over the shift, at each scale."""
        return tuple(left / shift if shift else 0.0 for left, shift in zip(self.left, self.shift, strict=True))

    @property
    def slope(self) -> float | None:
        """The slope of log(remainder) over log(scale) at the scales up to 0.1: 2 where the first order is right.

        None where there is no remainder, as when only a linear last map changed, or too few small scales.
        """
        scale = max(self.shift, default=0.0)
        points = [
            (math.log(s), math.log(left))
            for s, left in zip(self.scales, self.left, strict=True)
            if s <= SMALL and left > 1e-13 * scale
        ]
        if len(points) < 2:
            return None
        x, y = ([point[axis] for point in points] for axis in (0, 1))
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        across = sum((one - mean_x) ** 2 for one in x)
        return sum((one - mean_x) * (other - mean_y) for one, other in points) / across


@dataclass(frozen=True)
class LayerEquivalence:
    """One block: its branches' shifts, and what steering could copy of them.

    `skip_share` is the mean of ‖skip‖ / (‖skip‖ + ‖MLP branch‖) at the block's output, None without a known MLP branch.
    `pre_mlp` is the share of the squared norm of the MLP's first-order shift that lies in col A(x), token by token,
    and `effort` how large the shift of the MLP's input is for it, over that input. `post_mlp` and `post_block` are
    the shares of the block's shift, on held-out rows, that the best affine map of each rank from that activation gives;
    rank 0 is a vector.
    """

    layer: int
    skip_share: float | None
    attention: Remainder | None
    mlp: Remainder | None
    steering: Remainder | None
    pre_mlp: float | None
    effort: float | None
    post_mlp: dict[int, float] | None
    post_block: dict[int, float]


@dataclass(frozen=True)
class EquivalenceReport(Plain):
    """A weight update as activation shifts, by layer; it prints as a table, draws itself, and goes to JSON.

    `outside` are the changed weights that no block holds, which no shift in a block can stand for.
    """

    model: str
    tokens: int
    ranks: tuple[int, ...]
    layers: tuple[LayerEquivalence, ...]
    outside: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON, with the slopes."""
        values = asdict(self)
        for layer, one in zip(values["layers"], self.layers, strict=True):
            for kind in ("attention", "mlp", "steering"):
                if (remainder := getattr(one, kind)) is not None:
                    layer[kind] |= {"relative": remainder.relative, "slope": remainder.slope}
        return values

    def figure(self) -> Figure:
        """Draw the remainder by scale, the shares by layer, and the skip's share (needs matplotlib)."""

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""

        return table(self)


def table(report: EquivalenceReport) -> RenderableType:
    """Return a row a layer, and what the columns mean."""
    rank = report.ranks[-1]
    shown = Table(
        "layer",
        *(Column(name, justify="right") for name in ("skip", "attn", "left", "MLP", "left", "slope")),
        *(Column(name, justify="right") for name in ("pre-MLP", "effort")),
        *(Column(name, justify="right", no_wrap=True) for name in ("post-MLP", "post-block")),
        box=None,
        pad_edge=False,
    )
    for one in report.layers:
        shown.add_row(
            str(one.layer),
            _cell(one.skip_share),
            *_two(one.attention),
            *_two(one.mlp),
            "" if one.mlp is None or one.mlp.slope is None else f"{one.mlp.slope:.2f}",
            _cell(one.pre_mlp),
            "" if one.effort is None else f"{one.effort:.3g}",
            _cell(None if one.post_mlp is None else one.post_mlp[rank]),
            _cell(one.post_block[rank]),
        )
    notes = [
        f"{report.model}, {report.tokens:,} tokens. attn, MLP: their shift over their output; left: what the first "
        "order misses of them. Slope: 2 where it is right. pre-MLP: the share of the MLP's shift in col A(x), and the "
        f"effort ‖Δx‖/‖x‖ it takes; post-: the share of the block's shift that an affine map of rank {rank} copies.",
    ]
    if report.outside:
        more = f" and {len(report.outside) - 1} more" if report.outside[1:] else ""
        notes.append(f"Changed outside the blocks, where no shift reaches: {report.outside[0]}{more}.")
    return Group(shown, "", *notes, *report.left_out)


def _cell(share: float | None) -> str:
    """Return a share of 1 in percent, or nothing."""
    return "" if share is None else f"{100 * share:.1f} %"


def _two(remainder: Remainder | None) -> tuple[str, str]:
    if remainder is None:
        return "", ""
    return f"{100 * remainder.share:.3g} %", f"{100 * remainder.relative[-1]:.3g} %"


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
        draw=lambda: _drawn(skip, report),
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
        draw=lambda: _drawn(remainder, report),
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
