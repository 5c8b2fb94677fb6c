"""The results of the oracle and of an extraction, and the sections that show them."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from actshift.analysis.equivalence.report import outside_note
from actshift.analysis.figures import DOTS, ELSEWHERE, OTHER, POST_BLOCK, Plot, label_axes, opacity
from actshift.analysis.sections import Section, SectionReport, blocks, dash, percent, span, table

MOST_ENERGY = 0.9
NONLINEAR_PAYS = 0.02  # a nonlinear map is recommended if its R² exceeds the linear one by two points
COMPARED = {
    "base": "untouched base",
    "oracle": "exact oracle",
    "linear": "linear, every rank",
    "closed_form": "this adapter, closed form",
    "distilled": "this adapter, distilled",
}


@dataclass(frozen=True)
class LayerOracle:
    """The oracle shift of one block, with values for each rank.

    `size` is its root mean square relative to the activation, `energy` the fraction of Σ‖Δh‖² in its first directions,
    and `r2` the R² of the best linear map of a rank on held-out rows. `r2_linear` belongs to the map of
    full rank, and `r2_nonlinear` to a low-rank map with SiLU, or is None if none was trained.
    """

    layer: int
    size: float
    energy: dict[int, float]
    r2: dict[int, float]
    r2_linear: float
    r2_nonlinear: float | None


@dataclass(frozen=True)
class OracleReport(SectionReport):
    """The oracle of a fine-tuned model.

    `kl_base` is the KL divergence of the base from the fine-tuned model, in nats per token, and `kl_oracle` the same
    with the oracle's shifts. `outside` are changed weights outside the blocks. No shift after a block can replace
    them, and `kl_oracle` then exceeds 0.
    """

    layers: tuple[LayerOracle, ...]
    ranks: tuple[int, ...]
    nonlinear_rank: int
    kl_base: float
    kl_oracle: float
    outside: tuple[str, ...]

    @property
    def sections(self) -> tuple[Section, ...]:
        """The spectrum and the predictability of the shifts."""
        return (_oracle_section(self),)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The spectrum and the predictability, by block."""
        return self.plot_spectrum, self.plot_predictability

    def plot_spectrum(self, axes: Any) -> None:
        """Draw the share of the energy in the first directions, one line for each block."""
        for layer in self.layers:
            style = DOTS | {"color": POST_BLOCK, "alpha": opacity(layer.layer, len(self.layers))}
            axes.plot(self.ranks, list(layer.energy.values()), "o-", **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(self.ranks, [str(rank) for rank in self.ranks])
        axes.set_ylim(0, 1.03)
        label_axes(axes, "rank", "share of the energy", "Spectrum of the oracle shifts (later blocks darker)")

    def plot_predictability(self, axes: Any) -> None:
        """Draw R² of linear and nonlinear maps on held-out rows, by block."""
        rank, numbers = self.nonlinear_rank, [layer.layer for layer in self.layers]
        linear, nonlinear = zip(*((layer.r2_linear, layer.r2_nonlinear) for layer in self.layers), strict=True)
        axes.plot(numbers, linear, "o-", color=ELSEWHERE, label="linear", markersize=3)
        if rank in self.ranks:
            low_rank = [layer.r2[rank] for layer in self.layers]
            axes.plot(numbers, low_rank, "o--", color=ELSEWHERE, label=f"linear r={rank}", **DOTS)
        if None not in nonlinear:
            axes.plot(numbers, nonlinear, "o-", color=OTHER, label=f"SiLU r={rank}", **DOTS)
        axes.legend(fontsize=8, frameon=False)
        axes.set_ylim(min(0, *axes.get_ylim()), 1.03)
        label_axes(axes, "block", "R² on held-out rows", "Predictability of the oracle shifts")


@dataclass(frozen=True)
class LayerFit:
    """The closed-form adapter of one block: its rank, the chosen ridge, and R² on held-out rows."""

    layer: int
    rank: int
    ridge: float
    r2: float


@dataclass(frozen=True)
class ExtractReport(SectionReport):
    """An adapter that replaces a fine-tuned checkpoint.

    `parameters` counts the adapter's and `checkpoint` the fine-tuned model's parameters. `kl` is the KL divergence
    from the fine-tuned model in nats per token, for each key of `COMPARED` that was measured.
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

    @property
    def plots(self) -> tuple[Plot, ...]:
        """The plots of the oracle."""
        return self.oracle.plots

    @property
    def sections(self) -> tuple[Section, ...]:
        """The oracle, the fit of each block, and the divergence from the fine-tuned model."""
        fits = Section(
            key="fits",
            title="The extracted adapter",
            how_to_read="Each row is the closed-form fit of one block, with R² on held-out rows.",
            **table(
                self.layers,
                ("block", lambda fit: str(fit.layer)),
                ("rank", lambda fit: str(fit.rank)),
                ("ridge", lambda fit: f"{fit.ridge:g}"),
                ("R²", lambda fit: f"{fit.r2:.3f}"),
            ),
            note=f"{self.parameters:,} parameters replace {self.checkpoint:,}, "
            f"{self.checkpoint / self.parameters:,.1f} times fewer. {self.tokens:,} tokens of text.",
        )
        divergence = Section(
            key="divergence",
            title="Divergence from the fine-tuned model",
            how_to_read="Each row is a KL divergence of next-token distributions, in nats per token; 0 is identical.",
            columns=("predictions by", "KL"),
            rows=tuple((COMPARED[name], f"{value:.3g}") for name, value in self.kl.items()),
        )
        return (*self.oracle.sections, fits, divergence)


def _oracle_section(report: OracleReport) -> Section:
    first, last = report.ranks[0], report.ranks[-1]
    energy = [span(layer.energy[rank] for layer in report.layers) for rank in (first, last)]
    note = (
        f"With these shifts the KL divergence of the base from the fine-tuned model is {report.kl_oracle:.2g} nats per "
        f"token; without them it is {report.kl_base:.3g}."
    )
    return Section(
        key="oracle",
        title="How simple the fine-tuned model's shifts are",
        how_to_read="Each line is a block: the share of the shifts' energy in their first directions, and R² of maps "
        "that predict the shifts from the activations.",
        **table(
            report.layers,
            ("block", lambda layer: str(layer.layer)),
            ("size", lambda layer: percent(layer.size)),
            *((f"energy r={rank}", lambda layer, rank=rank: percent(layer.energy[rank])) for rank in report.ranks),
            *((f"R² r={rank}", lambda layer, rank=rank: f"{layer.r2[rank]:.3f}") for rank in report.ranks),
            ("R² linear", lambda layer: f"{layer.r2_linear:.3f}"),
            (f"R² SiLU r={report.nonlinear_rank}", lambda layer: dash(layer.r2_nonlinear, ".3f")),
        ),
        advice=f"{_rank_advice(report)} {_nonlinear_advice(report)}".rstrip(),
        note=f"{note} {outside_note(report.outside)}".rstrip(),
        alt=f"Lines by block, rising with the rank from {energy[0]} at rank {first} to {energy[1]} at rank {last}.",
        plot=report.plot_spectrum,
    )


def _rank_advice(report: OracleReport) -> str:
    shifted = [layer for layer in report.layers if layer.size] or list(report.layers)
    for rank in report.ranks:
        if min(layer.energy[rank] for layer in shifted) >= MOST_ENERGY:
            energy = span(layer.energy[rank] for layer in shifted)
            return f"Extract at rank {rank} (`actshift extract --rank {rank}`), which covers {energy} of the energy."
    last = report.ranks[-1]
    least = min(shifted, key=lambda layer: layer.energy[last])
    return (
        f"Extract at more than rank {last}, or spend a budget unevenly (`actshift extract --budget`): rank {last} "
        f"covers only {percent(least.energy[last])} of the energy in {blocks([least.layer])}."
    )


def _nonlinear_advice(report: OracleReport) -> str:
    rank = report.nonlinear_rank
    if rank not in report.ranks:
        return ""
    linear = fmean(layer.r2[rank] for layer in report.layers)
    explained = f"linear map of rank {rank} explains {percent(linear)} of the shifts' variance"
    values = [layer.r2_nonlinear for layer in report.layers if layer.r2_nonlinear is not None]
    if len(values) < len(report.layers):
        return f"A {explained}."
    pays = fmean(values) > linear + NONLINEAR_PAYS
    choice = "Train it with SiLU rather than in closed form" if pays else "Keep it linear"
    return f"{choice}: a {explained}, and a map with SiLU {percent(fmean(values))}."
