from __future__ import annotations

from collections.abc import Callable

import pytest

from actshift.analysis.report import Findings, Report
from tests.analysis.example_reports import equivalence_report, locate_report, oracle_report, redundancy_report


@pytest.fixture(scope="session")
def full_report() -> Report:
    """A page report with every section."""
    oracle = oracle_report(outside=("embed.weight", "norm.weight"))
    findings = Findings(locate_report(), equivalence_report(), oracle, redundancy_report())
    about = {"model": "models/tiny", "data": "a<b>.jsonl"}
    return Report(findings, about, {"command": "actshift report --out 'r.html'"})


@pytest.fixture
def advice_of() -> Callable[..., str]:
    """A function that returns the advice of a section for some reports."""

    def advice(key: str, **reports: object) -> str:
        findings = Findings(**{"locate": locate_report(), **reports})  # type: ignore[arg-type]
        return next(section.advice for section in Report(findings, {}).sections if section.key == key)

    return advice
