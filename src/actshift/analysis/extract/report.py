"""What an extraction found, and how close its adapter comes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actshift.analysis.plain import Plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class LayerOracle:
    """The oracle shift of one block.

    `size` is its root mean square over that of the activation, `energy` the share of Σ‖Δh‖² in its first directions,
    `r2` how much of its variance the best linear map of each rank predicts on held-out rows, `r2_linear` any linear
    map, and `r2_nonlinear` a low-rank one with SiLU.
    """

    layer: int
    size: float
    energy: dict[int, float]
    r2: dict[int, float]
    r2_linear: float
    r2_nonlinear: float | None


@dataclass(frozen=True)
class OracleReport(Plain):
    """The oracle of a fine-tuned model; KLs in nats a token, from the fine-tuned model's distributions.

    `outside` are the changed weights that no block holds: what they do, no shift after a block can, and `kl_oracle`
    is then more than 0.
    """

    layers: tuple[LayerOracle, ...]
    ranks: tuple[int, ...]
    nonlinear_rank: int
    kl_base: float
    kl_oracle: float
    outside: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)

    def figure(self) -> Figure:
        """Draw the spectrum and the predictability by layer (needs matplotlib)."""
        from actshift.analysis.extract.picture import draw

        return draw(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""
        from actshift.analysis.extract.table import oracle_table

        return oracle_table(self)


@dataclass(frozen=True)
class LayerFit:
    """The closed-form adapter of one block: its rank, the ridge chosen on held-out rows, and its R² there."""

    layer: int
    rank: int
    ridge: float
    r2: float


@dataclass(frozen=True)
class ExtractReport(Plain):
    """An adapter in place of a fine-tuned checkpoint.

    `kl` holds nats a token from the fine-tuned model, by what is compared with it: base, oracle, linear (every rank),
    closed form, and distilled. `parameters` are the adapter's, `checkpoint` the fine-tuned model's.
    """

    model: str
    finetuned: str
    tokens: int
    parameters: int
    checkpoint: int
    layers: tuple[LayerFit, ...]
    kl: dict[str, float]
    distill_steps: int
    oracle: OracleReport

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)

    def figure(self) -> Figure:
        """Draw the oracle's spectrum and predictability by layer (needs matplotlib)."""
        return self.oracle.figure()

    def __rich__(self) -> RenderableType:
        """Return the tables for a terminal."""
        from actshift.analysis.extract.table import extract_table

        return extract_table(self)
