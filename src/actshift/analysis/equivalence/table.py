"""An equivalence report as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.equivalence.report import EquivalenceReport, Remainder


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
            percent(one.skip_share),
            *_two(one.attention),
            *_two(one.mlp),
            "" if one.mlp is None or one.mlp.slope is None else f"{one.mlp.slope:.2f}",
            percent(one.pre_mlp),
            "" if one.effort is None else f"{one.effort:.3g}",
            percent(None if one.post_mlp is None else one.post_mlp[rank]),
            percent(one.post_block[rank]),
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


def percent(share: float | None) -> str:
    """Return a share of 1 in percent, or nothing."""
    return "" if share is None else f"{100 * share:.1f} %"


def _two(remainder: Remainder | None) -> tuple[str, str]:
    if remainder is None:
        return "", ""
    return f"{100 * remainder.share:.3g} %", f"{100 * remainder.relative[-1]:.3g} %"
