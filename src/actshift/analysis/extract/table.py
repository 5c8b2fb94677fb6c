"""Reports of an extraction as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Column, Table

from actshift.analysis.extract.report import ExtractReport, OracleReport

NAMES = {
    "base": "untouched base",
    "oracle": "exact oracle",
    "linear": "linear, every rank",
    "closed_form": "this adapter, closed form",
    "distilled": "this adapter, distilled",
}


def oracle_table(report: OracleReport) -> RenderableType:
    """Return a row a layer: the shift's size, spectrum and predictability."""
    few = [rank for rank in report.ranks if rank in (1, 8, 32)] or list(report.ranks)
    names = ["size", *(f"energy r={rank}" for rank in few), *(f"R² r={rank}" for rank in few)]
    names += ["R² linear", f"R² SiLU r={report.nonlinear_rank}"]
    table = Table("layer", *(Column(name, justify="right") for name in names), box=None, pad_edge=False)
    for one in report.layers:
        shares = [one.size, *(one.energy[rank] for rank in few)]
        fits = [*(one.r2[rank] for rank in few), one.r2_linear, one.r2_nonlinear]
        table.add_row(
            str(one.layer),
            *(f"{100 * share:.1f} %" for share in shares),
            *("" if value is None else f"{value:.3f}" for value in fits),
        )
    return Group(table, *_outside(report))


def extract_table(report: ExtractReport) -> RenderableType:
    """Return the oracle's table, the fit of each layer, and how far from the fine-tuned model each step is."""
    fits = Table(
        "layer", *(Column(name, justify="right") for name in ("rank", "ridge", "R²")), box=None, pad_edge=False
    )
    for one in report.layers:
        fits.add_row(str(one.layer), str(one.rank), f"{one.ridge:g}", f"{one.r2:.3f}")
    steps = Table("predictions by", Column("KL, nats each", justify="right"), box=None, pad_edge=False)
    for name, value in report.kl.items():
        steps.add_row(NAMES[name], f"{value:.3g}")
    size = (
        f"{report.parameters:,} parameters in place of {report.checkpoint:,}, "
        f"{report.checkpoint / report.parameters:,.1f} times fewer; {report.tokens:,} tokens of text"
    )
    return Group(report.oracle, "", fits, "", steps, "", size)


def _outside(report: OracleReport) -> list[str]:
    if not report.outside:
        return []
    more = f" and {len(report.outside) - 1} more" if report.outside[1:] else ""
    return [f"Changed outside the blocks, where no shift after a block reaches: {report.outside[0]}{more}."]
