"""The result of `equivalence`, and the sections that show it."""

import math
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from actshift.analysis.figures import DOTS, ELSEWHERE, OTHER, POST_BLOCK, WEIGHTS, Plot, label_axes, opacity
from actshift.analysis.sections import Section, SectionReport, blocks, dash, listed, number, percent, span, table

SMALL_SCALE = 0.1  # the slope of the remainder is fitted up to this scale of the update; above it, higher orders count
MOST, CLOSE, ALIKE = 0.5, 0.1, 0.02
"""More than half of an output is most of it; a remainder below a tenth is close; shares within two points are alike."""


@dataclass(frozen=True)
class Remainder:
    """A shift and the error of its first-order prediction, for several `scales` of its cause.

    `shift`, `predicted` and `left`, the shift minus its prediction, are root mean square norms over tokens for each
    scale. `share` is the shift at the largest scale relative to the output that it changes.
    """

    scales: tuple[float, ...]
    shift: tuple[float, ...]
    predicted: tuple[float, ...]
    left: tuple[float, ...]
    share: float

    @property
    def relative(self) -> tuple[float, ...]:
        """The remainder relative to the shift, for each scale."""
        return tuple(left / shift if shift else 0.0 for left, shift in zip(self.left, self.shift, strict=True))

    @property
    def slope(self) -> float | None:
        """The slope of log(remainder) over log(scale) up to scale 0.1, which is 2 if the first order is right.

        None without a remainder, for example if only a linear last map changed, and with too few small scales.
        """
        pairs = zip(self.scales, self.left, strict=True)
        least = 1e-13 * max(self.shift, default=0.0)
        points = [(math.log(scale), math.log(left)) for scale, left in pairs if scale <= SMALL_SCALE and left > least]
        if len(points) < 2:
            return None
        mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
        across = sum((x - mean_x) ** 2 for x, _ in points)
        return sum((x - mean_x) * (y - mean_y) for x, y in points) / across


@dataclass(frozen=True)
class LayerEquivalence:
    """The shifts of one block, and the part of them that steering could copy.

    `skip_share` is the mean of ‖skip‖ / (‖skip‖ + ‖MLP‖) in the block's output; None if the MLP branch is unknown.
    `pre_mlp` is the share of the squared norm of the MLP's first-order shift that lies in col A(x), token by token,
    and `effort` the norm of the shift of the MLP's input that this takes, relative to the input. `post_mlp` and
    `post_block` are, for each rank, the share of the block's shift on held-out rows that the best affine map of that
    activation predicts. Rank 0 is a vector.
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
class EquivalenceReport(SectionReport):
    """A weight update as activation shifts, by block.

    `outside` are changed weights outside the blocks, which no shift in a block can replace. `left_out` are the reasons
    why branches of the blocks are unknown.
    """

    figure_size = (11.0, 3.4)

    model: str
    tokens: int
    ranks: tuple[int, ...]
    layers: tuple[LayerEquivalence, ...]
    outside: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON, with the relative remainders and the slopes."""
        values = asdict(self)
        for stored, layer in zip(values["layers"], self.layers, strict=True):
            for branch in ("attention", "mlp", "steering"):
                if (remainder := getattr(layer, branch)) is not None:
                    stored[branch] |= {"relative": remainder.relative, "slope": remainder.slope}
        return values

    @property
    def sections(self) -> tuple[Section, ...]:
        """The shares that steering could copy, and the first-order remainder if there is one."""
        return (_copy_section(self), *([_remainder_section(self)] if self.remainders else []))

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The remainder by scale, and the copied and the skip's shares by block."""
        return self.plot_remainder, self.plot_copied, self.plot_skip

    def branch(self, name: str) -> dict[int, Remainder]:
        """Return the shifts of the branch "attention" or "mlp", by block, if its first order leaves a remainder."""
        shifts = {layer.layer: getattr(layer, name) for layer in self.layers}
        return {layer: shift for layer, shift in shifts.items() if shift is not None and any(shift.left)}

    @property
    def remainders(self) -> dict[int, Remainder]:
        """The remainders to draw: of the MLP or, if it has none, of the attention."""
        return self.branch("mlp") or self.branch("attention")

    @property
    def skip_shares(self) -> dict[int, float]:
        """The known shares of the skip connection, by block."""
        return {layer.layer: layer.skip_share for layer in self.layers if layer.skip_share is not None}

    def plot_remainder(self, axes: Any) -> None:
        """Draw the relative remainder over the scale of the update, one line for each block."""
        for layer, shift in self.remainders.items():
            style = DOTS | {"color": POST_BLOCK, "alpha": opacity(layer, self.layers[-1].layer + 1)}
            axes.plot(shift.scales, shift.relative, "o-", **style)
        if self.remainders:
            axes.set(xscale="log", yscale="log")
        branch = "MLP" if self.branch("mlp") else "attention"
        label_axes(axes, "scale of the update", "remainder / shift", f"Remainder of the {branch} (later blocks darker)")

    def plot_copied(self, axes: Any) -> None:
        """Draw the share of the shift that steering at each site could copy, by block."""
        numbers, rank = [layer.layer for layer in self.layers], self.ranks[-1]
        lines = (
            (f"post-block r={rank}", POST_BLOCK, [layer.post_block[rank] for layer in self.layers]),
            (f"post-MLP r={rank}", ELSEWHERE, [layer.post_mlp and layer.post_mlp[rank] for layer in self.layers]),
            ("pre-MLP, any shift", OTHER, [layer.pre_mlp for layer in self.layers]),
        )
        for label, colour, shares in lines:
            if None not in shares:
                axes.plot(numbers, shares, "o-", color=colour, label=label, **DOTS)
        axes.set_ylim(-0.03, 1.03)
        axes.legend(fontsize=8, frameon=False)
        label_axes(axes, "block", "share of the shift", "What steering could copy")

    def plot_skip(self, axes: Any) -> None:
        """Draw the share of the skip connection in the output, by block."""
        axes.bar(list(self.skip_shares), list(self.skip_shares.values()), color=WEIGHTS, width=0.7)
        axes.set_ylim(0, 1)
        label_axes(axes, "block", "‖skip‖ / (‖skip‖ + ‖MLP‖)", "Share of the skip connection")


def outside_note(names: tuple[str, ...]) -> str:
    """Return a note about changed weights outside the blocks, or an empty string."""
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return f"Changed outside the blocks, where steering cannot reach: {names[0]}{more}." if names else ""


def _copy_section(report: EquivalenceReport) -> Section:
    rank, skip_shares = report.ranks[-1], report.skip_shares
    notes = [
        f"{report.model}, {report.tokens:,} tokens.",
        "Attention and MLP: the shift relative to the output of the branch.",
        f"Post-MLP and post-block: the share of the block's shift that an affine map of rank {rank} copies, on "
        "held-out rows.",
        "Pre-MLP: the share of the MLP's first-order shift in col A(x), and the effort ‖Δx‖ / ‖x‖ that it takes.",
        outside_note(report.outside),
        *report.left_out,
    ]
    words: dict[str, Any] = {
        "title": "What steering could copy",
        "how_to_read": "Each share is the part of the update's shift that steering at one site could copy.",
        "advice": "Steer after the block: the MLP of this architecture is unknown.",
        "alt": "Lines by block: the share of the shift that steering at each site could copy.",
        "plot": report.plot_copied,
    }
    if skip_shares:
        words = {
            "title": "What the skip connection carries",
            "how_to_read": "The share of the skip is the mean of ‖skip‖ / (‖skip‖ + ‖MLP‖) in a block's output, which "
            "steering after the MLP misses and steering after the block includes.",
            "advice": _site_advice(report),
            "alt": f"Bars by block: the skip connection carries {span(skip_shares.values())} of the block's output.",
            "plot": report.plot_skip,
        }
    columns = table(
        report.layers,
        ("block", lambda layer: str(layer.layer)),
        ("skip", lambda layer: percent(layer.skip_share)),
        ("attention", lambda layer: dash(layer.attention and 100 * layer.attention.share, ".3g", " %")),
        ("MLP", lambda layer: dash(layer.mlp and 100 * layer.mlp.share, ".3g", " %")),
        (f"post-MLP r={rank}", lambda layer: percent(layer.post_mlp[rank] if layer.post_mlp else None)),
        (f"post-block r={rank}", lambda layer: percent(layer.post_block[rank])),
        ("pre-MLP", lambda layer: percent(layer.pre_mlp)),
        ("effort", lambda layer: dash(layer.effort, ".3g")),
    )
    return Section(key="skip", note=" ".join(filter(None, notes)), **words, **columns)


def _site_advice(report: EquivalenceReport) -> str:
    """Recommend steering after the block or after the MLP."""
    rank, shares = report.ranks[-1], report.skip_shares
    most, largest = [layer for layer, share in shares.items() if share > MOST], percent(max(shares.values()))
    if most:
        carried = f"the skip connection carries more than half of the output in {blocks(most)}, up to {largest}"
    else:
        carried = "the MLP carries more than half of the output in every block, and the skip connection "
        carried += f"{largest} at most"
    pairs = [(layer.post_block[rank], layer.post_mlp[rank]) for layer in report.layers if layer.post_mlp]
    if not pairs:
        return f"Steer after the {'block' if most else 'MLP'}: {carried}."
    block, mlp = (fmean(values) for values in zip(*pairs, strict=True))
    better = "Steer after the block" if block > mlp else "Try steering after the MLP"
    advice = "Choose between block and MLP by training after both" if abs(block - mlp) < ALIKE else better
    return (
        f"{advice}: an affine map of rank {rank} copies {percent(block)} of this update's shift after the block and "
        f"{percent(mlp)} after the MLP, on held-out rows. {carried[0].upper()}{carried[1:]}."
    )


def _remainder_section(report: EquivalenceReport) -> Section:
    drawn, other = ("mlp", "attention") if report.branch("mlp") else ("attention", "mlp")
    labels = {"mlp": "MLP", "attention": "attention"}
    remainders = report.remainders
    scales = next(iter(remainders.values())).scales

    def error(layer: LayerEquivalence, branch: str, index: int) -> str:
        shift = getattr(layer, branch)
        return "–" if shift is None else f"{number(100 * shift.relative[index], 2)} %"

    slopes = sorted(shift.slope for shift in remainders.values() if shift.slope is not None)
    measured = " to ".join(dict.fromkeys(f"{slope:.2f}" for slope in (slopes[0], slopes[-1]))) if slopes else "unknown"
    return Section(
        key="remainder",
        title="How far the first order holds",
        how_to_read=f"Each line is the {labels[drawn]} of a block: the error of the prediction from ΔW relative to the "
        "shift, as the update is scaled.",
        **table(
            report.layers,
            ("block", lambda layer: str(layer.layer)),
            *((f"scale {scale:g}", lambda layer, n=n: error(layer, drawn, n)) for n, scale in enumerate(scales)),
            ("power", lambda layer: dash(remainders[layer.layer].slope if layer.layer in remainders else None, ".2f")),
            (f"{labels[other]}, scale {scales[-1]:g}", lambda layer: error(layer, other, -1)),
        ),
        advice=_first_order_advice(report),
        note="If the first order is right, the error falls with the power 2 of the scale; here the power is "
        f"{measured}.",
        alt="Lines by block on log axes: the remainder falls with the scale, and is "
        f"{span(shift.relative[-1] for shift in remainders.values())} of the shift at full size.",
        plot=report.plot_remainder,
    )


def _first_order_advice(report: EquivalenceReport) -> str:
    """Say up to which scale of the update the first-order prediction is close in every block."""
    branches = {"MLPs'": report.branch("mlp").values(), "attention's": report.branch("attention").values()}
    full_size = {name: span(shift.relative[-1] for shift in shifts) for name, shifts in branches.items() if shifts}
    missed = listed(f"{errors} of the {name} shift" for name, errors in full_size.items())
    shifts = list(chain(*branches.values()))
    worst = [max(values) for values in zip(*(shift.relative for shift in shifts), strict=True)]
    close = [scale for scale, error in zip(shifts[0].scales, worst, strict=True) if error < CLOSE]
    rest = "and train to know the rest"
    trusted = f"for a direction alone, {rest}"
    if worst[-1] < CLOSE:
        trusted = "for an update of this size"
    elif close:
        trusted = f"for the first {percent(max(close))} of this update, with errors below a tenth per block, {rest}"
    return f"Trust first-order figures {trusted}: at its full size the first order misses {missed}."
