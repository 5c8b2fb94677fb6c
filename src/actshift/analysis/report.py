"""One page with the figures of everything that was looked at, each with how to read it and what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from actshift.adapters.base import check_rank
from actshift.analysis.capture import Batch, check_tokens
from actshift.analysis.equivalence import EquivalenceReport, equivalence
from actshift.analysis.equivalence.report import sections as equivalence_sections
from actshift.analysis.extract import ModelPair, OracleReport, oracle
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS
from actshift.analysis.extract.report import sections as oracle_sections
from actshift.analysis.locate import LocateReport, locate
from actshift.analysis.locate.rendering import sections as locate_sections
from actshift.analysis.redundancy import Redundancy, redundancy
from actshift.analysis.redundancy import sections as redundancy_sections
from actshift.analysis.render import ProgressCallback, Section, listed, page, progress_counter
from actshift.files import write_whole
from actshift.sites import resolve
from actshift.tuner.loading import load_any_adapter


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
    heard: ProgressCallback = lambda phase, done, total: None,
) -> Findings:
    """Measure all that a report shows, first what is cheap and could fail.

    `finetuned` is a twin of `model`, `joint` the folder or hub id of a joint adapter for it, which is attached for a
    while. `steps` train the oracle's nonlinear maps. `heard` is told the phase and how many of its steps are done.

    Raises ActshiftError as `load_any_adapter`, `redundancy`, `locate`, `equivalence` and `oracle` do.
    """
    width, count = resolve(model, layers=[0])[0].width, len(batches)
    check_rank(rank, width)
    twins = None if finetuned is None else ModelPair.of(model, finetuned)
    if twins is not None:
        check_tokens(batches, 4, "the comparison with the fine-tuned model")
    halves = _halves(model, batches, joint) if joint is not None else None
    found = locate(model, batches, rank=rank, on_batch=lambda done: heard("Backward passes", done, count))
    if twins is None:
        return Findings(found, redundancy=halves)
    measured = sorted({rank, *(one for one in RANKS if one <= width)})
    spectrum = oracle(twins, batches, measured, rank, steps, progress_counter(heard, "The oracle", 2 * count + steps))
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


FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Report:
    """What was found about a model, with `about`, what it was found on, and `made`, how; both are told as they are."""

    findings: Findings
    about: Mapping[str, str]
    made: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The figures with their words, of what was found."""
        found = self.findings
        return (
            *locate_sections(found.locate),
            *(equivalence_sections(found.equivalence) if found.equivalence else ()),
            *(oracle_sections(found.oracle) if found.oracle else ()),
            *(redundancy_sections(found.redundancy) if found.redundancy else ()),
        )

    @property
    def title(self) -> str:
        """What the page is called."""
        found = self.findings
        about = ["where to steer"]
        about += ["what fine-tuning changed"] if found.equivalence else []
        about += ["what its two halves share"] if found.redundancy else []
        return f"{Path(found.locate.model).name}: {listed(about)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the sections' words and tables and every report behind them, ready for JSON."""
        return {
            "about": dict(self.about),
            "made": dict(self.made),
            "sections": [section.to_dict() for section in self.sections],
            **self.findings.to_dict(),
        }

    def html(self) -> str:
        """Return the page, which needs no other file and no network (needs matplotlib)."""
        return page(self.title, self.about, self.sections, self.made)

    def write(self, out: str | Path, figures: str | Path | None = None) -> None:
        """Write the page to `out`, and each figure as PNG and SVG into the folder `figures`, which is made."""
        write_whole(out, self.html())
        if figures is None:
            return
        Path(figures).mkdir(parents=True, exist_ok=True)
        for section in self.sections:
            figure = section.draw()
            for kind in FORMATS:
                path = Path(figures, f"{section.key}.{kind}")
                part = path.with_name(f".{path.name}.{os.getpid()}.part")
                figure.savefig(part, format=kind)
                part.replace(path)
