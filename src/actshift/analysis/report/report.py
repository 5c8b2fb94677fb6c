"""A report: what was found, as a page, as pictures, and as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actshift.analysis.report import halves, spectrum, steering, update
from actshift.analysis.report.findings import Findings
from actshift.analysis.report.page import page
from actshift.analysis.report.section import Section, listed
from actshift.files import write_whole

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
            *steering.sections(found.locate),
            *(update.sections(found.equivalence) if found.equivalence else ()),
            *(spectrum.sections(found.oracle) if found.oracle else ()),
            *(halves.sections(found.redundancy) if found.redundancy else ()),
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
