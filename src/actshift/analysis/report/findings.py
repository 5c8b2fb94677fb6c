"""Everything that a report shows, measured on one model and one set of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from actshift.adapters.checks import check_rank
from actshift.analysis.capture import Batch, check_tokens
from actshift.analysis.equivalence import EquivalenceReport, equivalence
from actshift.analysis.extract import OracleReport, Twins, oracle
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS
from actshift.analysis.heard import Heard, counted
from actshift.analysis.locate import LocateReport, locate
from actshift.analysis.redundancy import Redundancy, redundancy
from actshift.sites import resolve
from actshift.tuner.lora import load_any_adapter


@dataclass(frozen=True)
class Findings:
    """What was found: where to steer, and where there is a fine-tuned twin or a joint adapter, what they amount to."""

    locate: LocateReport
    equivalence: EquivalenceReport | None = None
    oracle: OracleReport | None = None
    redundancy: Redundancy | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return each report that there is, ready for JSON."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: report.to_dict() for name, report in found.items() if report is not None}


def look(
    model: nn.Module,
    batches: Sequence[Batch],
    rank: int = 8,
    finetuned: nn.Module | None = None,
    joint: str | None = None,
    steps: int = NONLINEAR_STEPS,
    heard: Heard = lambda phase, done, total: None,
) -> Findings:
    """Measure all that a report shows, first what is cheap and could fail.

    `finetuned` is a twin of `model`, `joint` the folder or hub id of a joint adapter for it, which is attached for a
    while. `steps` train the oracle's nonlinear maps. `heard` is told the phase and how many of its steps are done.

    Raises ActshiftError as `load_any_adapter`, `redundancy`, `locate`, `equivalence` and `oracle` do.
    """
    width, count = resolve(model, layers=[0])[0].width, len(batches)
    check_rank(rank, width)
    twins = None if finetuned is None else Twins.of(model, finetuned)
    if twins is not None:
        check_tokens(batches, 4, "the comparison with the fine-tuned model")
    halves = _halves(model, batches, joint) if joint is not None else None
    found = locate(model, batches, rank=rank, on_batch=lambda done: heard("Backward passes", done, count))
    if twins is None:
        return Findings(found, redundancy=halves)
    measured = sorted({rank, *(one for one in RANKS if one <= width)})
    spectrum = oracle(twins, batches, measured, rank, steps, counted(heard, "The oracle", 2 * count + steps))
    update = equivalence(
        model, twins.finetuned, batches, sorted({1, rank}), on_batch=lambda done: heard("The update", done, count)
    )
    return Findings(found, update, spectrum, halves)


def _halves(model: nn.Module, batches: Sequence[Batch], joint: str) -> Redundancy:
    steered: Any = load_any_adapter(model, joint)
    try:
        return redundancy(steered, batches)
    finally:
        steered.unload()
