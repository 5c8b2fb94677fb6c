"""Plots of first-order gains: a heat map by block and site, and bars by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.analysis.figures import ELSEWHERE, INK, ON_COLOUR, POST_BLOCK, WEIGHTS, finish
from actshift.analysis.locate.gains import Estimate, MethodGain, SiteGain

MAX_LABELLED_ROWS = 48
"""Cells show their gain up to this number of blocks. With more blocks they are too small for text."""
LIGHT_TEXT_FROM = 0.78
"""Fraction of the largest gain from which the cell is dark enough for white text."""


@dataclass(frozen=True)
class HeatMap:
    """Gains at one rank, by block and by the `names` of sites or of linear maps (`weight`)."""

    names: tuple[str, ...]
    gains: Mapping[tuple[int, str], Estimate]
    weight: bool

    @classmethod
    def of(cls, places: Sequence[SiteGain], rank: int) -> HeatMap:
        """Return the map of places that are either all sites or all linear maps."""
        names = tuple(dict.fromkeys(place.site for place in places))
        return cls(names, {(place.layer, place.site): place.gain(rank) for place in places}, places[0].weight)

    @property
    def layers(self) -> list[int]:
        """The blocks, one for each row."""
        return sorted({layer for layer, _ in self.gains})

    @property
    def best(self) -> Estimate:
        """The largest gain."""
        return max(self.gains.values(), key=lambda gain: gain.value)

    @property
    def labels(self) -> tuple[str, ...]:
        """The last part of each name if it identifies the column, and the whole name if not."""
        short = [name.rpartition(".")[2] for name in self.names]
        return tuple(last if short.count(last) == 1 else name for name, last in zip(self.names, short, strict=True))

    @property
    def height(self) -> float:
        """Height of the figure in inches."""
        return min(1 + 0.3 * len(self.layers), 14)

    def star(self, gain: Estimate) -> str:
        """Return a star if the gain matches the largest one within two standard errors of their difference."""
        return "*" if gain.error is not None and not self.best.minus(gain).clear else ""

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the rows of the table: the block and its gains, with a dash for a block without that place."""
        cells = {
            layer: [f"{gain}{self.star(gain)}" if gain else "–" for gain in self._row(layer)] for layer in self.layers
        }
        return tuple((str(layer), *row) for layer, row in cells.items())

    def shades(self) -> tuple[tuple[float, ...], ...]:
        """Return each gain as a fraction of the largest one, in the layout of `rows` without the first column."""
        top = self.best.value or 1.0
        return tuple(tuple(gain.value / top if gain else 0.0 for gain in self._row(layer)) for layer in self.layers)

    def _row(self, layer: int) -> list[Estimate | None]:
        return [self.gains.get((layer, name)) for name in self.names]

    def plot(self, axes: Any) -> None:
        """Draw the map on axes: the stronger the colour, the larger the gain."""
        from matplotlib.colors import LinearSegmentedColormap, to_rgba

        colour, top = WEIGHTS if self.weight else POST_BLOCK, self.best.value
        shades = LinearSegmentedColormap.from_list("gain", [to_rgba(colour, 0.04), to_rgba(colour, 1.0)])
        grid = [[gain.value if gain else float("nan") for gain in self._row(layer)] for layer in self.layers]
        axes.pcolormesh(grid, cmap=shades, vmin=0, vmax=top or 1, edgecolors="none")
        for row, layer in enumerate(self.layers if len(self.layers) <= MAX_LABELLED_ROWS else ()):
            for column, gain in enumerate(self._row(layer)):
                if gain is not None:
                    text, position = f"{gain.value:.3g}{self.star(gain)}", (column + 0.5, row + 0.5)
                    ink = ON_COLOUR if gain.value > LIGHT_TEXT_FROM * top else INK
                    axes.annotate(text, position, ha="center", va="center", fontsize=8, color=ink)
        axes.invert_yaxis()
        axes.set_xticks([column + 0.5 for column in range(len(self.names))], self.labels)
        axes.set_yticks([row + 0.5 for row in range(len(self.layers))], [str(layer) for layer in self.layers])
        finish(axes, "", "block")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if len(self.names) > 3:
            axes.tick_params("x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")


def plot_methods(axes: Any, methods: Sequence[MethodGain]) -> None:
    """Draw the gain per 1,000 parameters of methods on axes, with standard errors, the first method at the top."""
    for position, method in enumerate(reversed(methods)):
        post_block = method.label.startswith("post_block")
        colour = WEIGHTS if method.weight else POST_BLOCK if post_block else ELSEWHERE
        gain, style = method.per_1000, {"ecolor": INK, "height": 0.66, "capsize": 2, "error_kw": {"lw": 1}}
        axes.barh(position, gain.value, xerr=gain.error, color=colour, **style)
    axes.set_yticks(range(len(methods)), [method.label for method in reversed(methods)])
    finish(axes, "gain of a unit step per 1,000 parameters", "")
