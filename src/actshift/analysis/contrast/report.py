"""The result of a contrast: for every block, the length of the vector and how well it separates the two sides."""

from dataclasses import asdict, dataclass
from typing import Any

from actshift.analysis.figures import ELSEWHERE, POST_BLOCK, WEIGHTS, Plot, label_axes
from actshift.analysis.sections import Section, SectionReport, number, percent, table

METHODS = {"mean": "difference of means", "pca": "first principal axis of the pairs' differences"}
TOKENS = {"last": "at the last token", "mean": "of the mean over tokens"}


@dataclass(frozen=True)
class LayerContrast:
    """The vector v of one block: its `norm` ‖v‖, and the mean ‖h‖ of the compared tokens, `residual`.

    `separation` is the fraction of held-out rows on their side of a threshold on h · v: 1 is every row, 0.5 is chance.
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
class ContrastReport(SectionReport):
    """A contrast by block, between numbers of `positive` and `negative` rows. `notes` are warnings about the rows."""

    model: str
    method: str
    token: str
    positive: int
    negative: int
    layers: tuple[LayerContrast, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return {**asdict(self), "layers": [{**asdict(layer), "relative": layer.relative} for layer in self.layers]}

    @property
    def sections(self) -> tuple[Section, ...]:
        """The vectors by block."""
        best = max(self.layers, key=lambda layer: layer.separation)
        section = Section(
            key="contrast",
            title=f"{self.positive} positive and {self.negative} negative rows: {METHODS[self.method]} "
            f"{TOKENS[self.token]}",
            how_to_read="The separation is the fraction of held-out rows on their side of a threshold on h · v; "
            "50 % is chance.",
            **table(
                self.layers,
                ("block", lambda layer: str(layer.layer)),
                ("‖v‖", lambda layer: number(layer.norm)),
                ("‖v‖ / ‖h‖", lambda layer: f"{layer.relative:.3f}"),
                ("separation", lambda layer: f"{layer.separation:.1%}"),
            ),
            note=" ".join(self.notes),
            alt=f"Line by block; the highest separation is {percent(best.separation)} after block {best.layer}.",
            plot=self._plot_separation,
        )
        return (section,)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The separation and the relative length, by block."""
        return self._plot_separation, self._plot_length

    def _plot_separation(self, axes: Any) -> None:
        separations = [layer.separation for layer in self.layers]
        axes.axhline(0.5, color=WEIGHTS, linewidth=1, linestyle="--")
        axes.plot([layer.layer for layer in self.layers], separations, "o-", color=POST_BLOCK, markersize=3)
        axes.set_ylim(min(0.45, *separations), 1.03)
        label_axes(axes, "block", "rows on their side", "Separation of held-out rows (dashed: chance)")

    def _plot_length(self, axes: Any) -> None:
        lengths = [layer.relative for layer in self.layers]
        axes.plot([layer.layer for layer in self.layers], lengths, "o-", color=ELSEWHERE, markersize=3)
        axes.set_ylim(bottom=0)
        label_axes(axes, "block", "‖v‖ / ‖h‖", "Length of the vector")
