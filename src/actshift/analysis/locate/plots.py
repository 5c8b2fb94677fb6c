"""Plots of first-order gains: a heat map by block and site, and bars by method."""

from collections.abc import Sequence
from typing import Any

from actshift.analysis.figures import ELSEWHERE, INK, ON_COLOUR, POST_BLOCK, WEIGHTS, label_axes
from actshift.analysis.locate.gains import Estimate, MethodGain, SiteGain
from actshift.analysis.sections import number

MAX_LABELLED_ROWS = 48  # cells show their gain up to this number of blocks; with more they are too small
LIGHT_TEXT_FROM = 0.78  # fraction of the largest gain from which the cell is dark enough for white text


class HeatMap:
    """Gains at one rank, by block and by site or linear map (`weight`). The places are all of one type."""

    def __init__(self, places: Sequence[SiteGain], rank: int) -> None:
        self.names = tuple(dict.fromkeys(place.site for place in places))
        self.layers = sorted({place.layer for place in places})
        self.weight = places[0].weight
        self.height = min(1 + 0.3 * len(self.layers), 14)
        gains = {(place.layer, place.site): place.gain(rank) for place in places}
        self.gains = [[gains.get((layer, name)) for name in self.names] for layer in self.layers]
        (self.best_layer, self.best_name), self.best = max(gains.items(), key=lambda item: item[1].value)

    @property
    def best_place(self) -> str:
        """The position of the largest gain, and the gain, in words."""
        return f"{self.best_name.rpartition('.')[2]} of block {self.best_layer}, which gains {self.best}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The last part of each name if it identifies the column, and the whole name if not."""
        short = [name.rpartition(".")[2] for name in self.names]
        return tuple(last if short.count(last) == 1 else name for name, last in zip(self.names, short, strict=True))

    def star(self, gain: Estimate) -> str:
        """Return a star if the gain matches the largest one within two standard errors of their difference."""
        return "*" if gain.error is not None and not self.best.minus(gain).clear else ""

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the rows of the table: the block and its gains, with a dash for a block without that place."""
        cells = [[f"{gain}{self.star(gain)}" if gain else "–" for gain in row] for row in self.gains]
        return tuple((str(layer), *row) for layer, row in zip(self.layers, cells, strict=True))

    def shades(self) -> tuple[tuple[float, ...], ...]:
        """Return each gain as a fraction of the largest one, in the layout of `rows` without the first column."""
        top = self.best.value or 1.0
        return tuple(tuple(gain.value / top if gain else 0.0 for gain in row) for row in self.gains)

    def plot(self, axes: Any) -> None:
        """Draw the map on axes: the stronger the colour, the larger the gain."""
        from matplotlib.colors import LinearSegmentedColormap, to_rgba

        colour, top = WEIGHTS if self.weight else POST_BLOCK, self.best.value
        shades = LinearSegmentedColormap.from_list("gain", [to_rgba(colour, 0.04), to_rgba(colour, 1.0)])
        grid = [[gain.value if gain else float("nan") for gain in row] for row in self.gains]
        axes.pcolormesh(grid, cmap=shades, vmin=0, vmax=top or 1, edgecolors="none")
        for row, gains in enumerate(self.gains if len(self.gains) <= MAX_LABELLED_ROWS else ()):
            for column, gain in enumerate(gains):
                if gain is not None:
                    text, position = f"{number(gain.value)}{self.star(gain)}", (column + 0.5, row + 0.5)
                    ink = ON_COLOUR if gain.value > LIGHT_TEXT_FROM * top else INK
                    axes.annotate(text, position, ha="center", va="center", fontsize=8, color=ink)
        axes.invert_yaxis()
        axes.set_xticks([column + 0.5 for column in range(len(self.names))], self.labels)
        axes.set_yticks([row + 0.5 for row in range(len(self.layers))], self.layers)
        label_axes(axes, "", "block")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if len(self.names) > 3:
            axes.tick_params("x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")


def plot_methods(axes: Any, methods: Sequence[MethodGain]) -> None:
    """Draw the gain per 1,000 parameters of methods on axes, with standard errors, the first method at the top."""
    style: Any = {"ecolor": INK, "height": 0.66, "capsize": 2, "error_kw": {"lw": 1}}
    for position, method in enumerate(reversed(methods)):
        site_colour = POST_BLOCK if method.label.startswith("post_block") else ELSEWHERE
        gain, colour = method.per_1000, WEIGHTS if method.weight else site_colour
        axes.barh(position, gain.value, xerr=gain.error, color=colour, **style)
    axes.set_yticks(range(len(methods)), [method.label for method in reversed(methods)])
    label_axes(axes, "gain of a unit step per 1,000 parameters", "")
