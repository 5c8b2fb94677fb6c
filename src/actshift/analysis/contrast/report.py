"""What a contrast found: at every block, how long the vector is and how well it tells the two sides apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.render import ELSEWHERE, POST_BLOCK, WEIGHTS, Plain, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerContrast:
    """The vector v of one block.

    `norm` is ‖v‖, `relative` ‖v‖ over `residual`, the mean ‖h‖ of the tokens looked at, and `separation` the share of
    rows left out of the fit that fall on their side of a threshold on h · v: 1 is every one, 0.5 chance.
    """

    layer: int
    norm: float
    residual: float
    separation: float

    @property
    def relative(self) -> float:
        """‖v‖ / ‖h‖."""
        return self.norm / self.residual


@dataclass(frozen=True)
class ContrastReport(Plain):
    """A contrast by block; it prints as a table, draws itself, and goes to JSON.

    `positive` and `negative` are numbers of rows, `notes` what may make the vectors other than they look.
    """

    model: str
    method: str
    token: str
    positive: int
    negative: int
    layers: tuple[LayerContrast, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        layers = [{**asdict(one), "relative": one.relative} for one in self.layers]
        return {**asdict(self), "layers": layers, "notes": list(self.notes)}

    def figure(self) -> Figure:
        """Draw separation and relative size by block (needs matplotlib)."""

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""

        return table(self)


METHODS = {"mean": "difference of means", "pca": "first principal axis of the pairs' differences"}
TOKENS = {"last": "at the last token", "mean": "of the mean over tokens"}


def table(report: ContrastReport) -> RenderableType:
    """Return a row a block, with what one must know to read it."""
    names = ("‖v‖", "‖v‖ / ‖h‖", "separation")
    rows = Table("block", *(Column(name, justify="right") for name in names), box=None, pad_edge=False)
    for one in report.layers:
        rows.add_row(str(one.layer), f"{one.norm:.3g}", f"{one.relative:.3f}", f"{one.separation:.1%}")
    head = f"{report.positive} positive and {report.negative} negative rows: {METHODS[report.method]} "
    reading = "separation: rows left out of the fit that fall on their side of a threshold on h · v; 50 % is chance."
    return Group(head + TOKENS[report.token], "", rows, "", reading, *report.notes)


def draw(report: ContrastReport) -> Figure:
    """Draw how well each block's vector tells the two sides apart, and how long it is beside the activations.

    Raises ActshiftError where matplotlib is not installed.
    """
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    layers = [one.layer for one in report.layers]
    left.axhline(0.5, color=WEIGHTS, linewidth=1, linestyle="--")
    left.plot(layers, [one.separation for one in report.layers], "o-", color=POST_BLOCK, markersize=3)
    left.set_ylim(min(0.45, *(one.separation for one in report.layers)), 1.03)
    finish(left, "block", "rows on their side", "Separation of rows left out (dashed: chance)")
    right.plot(layers, [one.relative for one in report.layers], "o-", color=ELSEWHERE, markersize=3)
    right.set_ylim(bottom=0)
    finish(right, "block", "‖v‖ / ‖h‖", "Length of the vector")
    return figure
