"""What a contrast found: at every block, how long the vector is and how well it tells the two sides apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actshift.analysis.plain import Plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


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
        from actshift.analysis.contrast.picture import draw

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""
        from actshift.analysis.contrast.table import table

        return table(self)
