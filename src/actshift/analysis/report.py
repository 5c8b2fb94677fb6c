"""One HTML page of all analyses of a model: figures, with how to read them and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from actshift.adapters.base import check_rank
from actshift.analysis.capture import Batches, ProgressCallback, progress_counter, require_tokens
from actshift.analysis.equivalence import EquivalenceReport, equivalence
from actshift.analysis.extract import ModelPair, OracleReport, oracle
from actshift.analysis.extract.oracle import NONLINEAR_STEPS, RANKS
from actshift.analysis.html import to_html
from actshift.analysis.locate import LocateReport, locate
from actshift.analysis.redundancy import Redundancy, redundancy
from actshift.analysis.sections import Section, listed
from actshift.files import atomic_path, existing_folder, move_into, private_folder, write_atomically
from actshift.sites import resolve
from actshift.tuner.loading import load_any_adapter


@dataclass(frozen=True)
class Findings:
    """The reports about a model: `equivalence` and `oracle` of a fine-tuned model, `redundancy` of a joint adapter."""

    locate: LocateReport
    equivalence: EquivalenceReport | None = None
    oracle: OracleReport | None = None
    redundancy: Redundancy | None = None

    @property
    def reports(self) -> dict[str, Any]:
        """The reports that exist, by name."""
        return {name: report for name, report in vars(self).items() if report is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return every report that exists, ready for JSON."""
        return {name: report.to_dict() for name, report in self.reports.items()}


def run_analyses(
    model: nn.Module,
    batches: Batches,
    rank: int = 8,
    finetuned: nn.Module | None = None,
    joint: str | None = None,
    steps: int = NONLINEAR_STEPS,
    on_progress: ProgressCallback = lambda phase, done, total: None,
) -> Findings:
    """Run all analyses that apply. Cheap analyses and checks of the inputs run first.

    Args:
        batches: Keyword arguments of the model, with labels.
        finetuned: A fine-tuned version of `model`.
        joint: Folder or hub id of a joint adapter, which is attached temporarily.
        steps: Training steps of the oracle's nonlinear maps.

    Raises:
        ActshiftError: The rank is too high, or an input of an analysis is invalid.
    """
    width, count = resolve(model, layers=[0])[0].width, len(batches)
    check_rank(rank, width)
    pair = None if finetuned is None else ModelPair.of(model, finetuned)
    if pair is not None:
        require_tokens(batches, 4, "the comparison with the fine-tuned model")
    halves = None if joint is None else _joint_redundancy(model, batches, joint)
    gains = locate(model, batches, rank=rank, on_batch=lambda done: on_progress("Backward passes", done, count))
    if pair is None:
        return Findings(gains, redundancy=halves)
    ranks = sorted({rank, *(fixed for fixed in RANKS if fixed <= width)})
    shifts = oracle(pair, batches, ranks, rank, steps, progress_counter(on_progress, "The oracle", 2 * count + steps))
    update = equivalence(
        model, pair.finetuned, batches, sorted({1, rank}), on_batch=lambda done: on_progress("The update", done, count)
    )
    return Findings(gains, update, shifts, halves)


def _joint_redundancy(model: nn.Module, batches: Batches, joint: str) -> Redundancy:
    steered: Any = load_any_adapter(model, joint)
    try:
        return redundancy(steered, batches)
    finally:
        steered.unload()


@dataclass(frozen=True)
class Report:
    """The page about a model: its reports, and the facts `about` in its header and `made` in its footer."""

    findings: Findings
    about: Mapping[str, str]
    made: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections of all reports."""
        return tuple(section for report in self.findings.reports.values() for section in report.sections)

    @property
    def title(self) -> str:
        """The title of the page."""
        topics = ["where to steer"]
        topics += ["what fine-tuning changed"] if self.findings.equivalence else []
        topics += ["how its two halves overlap"] if self.findings.redundancy else []
        return f"{Path(self.findings.locate.model).name}: {listed(topics)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the words and tables of the sections and all reports, ready for JSON."""
        sections = [section.to_dict() for section in self.sections]
        return {"about": {**self.about}, "made": {**self.made}, "sections": sections, **self.findings.to_dict()}

    def html(self) -> str:
        """Return the page, which needs no other file and no network."""
        return to_html(self.title, self.about, self.sections, self.made)

    def write(self, out: str | Path, figures: str | Path | None = None) -> None:
        """Write the page to `out`, and each figure as PNG and SVG to the folder `figures`, which is created.

        Nothing changes before all of them are on the disk, and the page appears last.

        Raises ActshiftError if matplotlib is not installed.
        """
        if figures is None:
            write_atomically(out, self.html())
            return
        figures = Path(figures)
        with atomic_path(out) as page, private_folder(existing_folder(figures)) as private:
            page.write_text(self.html(), encoding="utf-8")
            (drawn := private / "figures").mkdir()
            for section in self.sections:
                figure = section.draw()
                for image_format in ("png", "svg"):
                    figure.savefig(drawn / f"{section.key}.{image_format}", format=image_format)
            figures.mkdir(parents=True, exist_ok=True)
            move_into(figures, drawn)
