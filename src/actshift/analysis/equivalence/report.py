"""What a comparison of a weight update with activation shifts found, by layer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actshift.analysis.plain import Plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

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
        from actshift.analysis.equivalence.picture import draw

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""
        from actshift.analysis.equivalence.table import table

        return table(self)
