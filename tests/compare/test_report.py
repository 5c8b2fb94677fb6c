"""The report of a comparison, finished and in progress."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from actshift.compare import CompareReport
from actshift.compare.methods import METHODS
from actshift.compare.protocol import SweepState
from actshift.compare.provenance import provenance
from actshift.compare.report import build_report, rich_table, short_rate
from tests.compare.conftest import PROTOCOL


def test_terminal_table_fits_eighty_columns(report: CompareReport) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(rich_table(report))
    text = screen.getvalue()
    assert "92.0 ± 2.0" in text and "90.5 ± 0.7*" in text and "5e-4/5e-5" in text and "…" not in text


def test_report_before_the_first_cell_prints() -> None:
    text = str(build_report(SweepState(list(METHODS.values()), seeds=3), PROTOCOL, {}))
    assert text.count("waiting") == len(METHODS)


@pytest.mark.parametrize(("rate", "text"), [(2e-3, "2e-3"), (1.5e-3, "1.5e-3"), (1e-5, "1e-5"), (1.0, "1e0")])
def test_short_rate_drops_zeros(rate: float, text: str) -> None:
    assert short_rate(rate) == text


def test_provenance_records_command_date_machine_and_versions() -> None:
    record = provenance("actshift compare")
    assert record["command"] == "actshift compare"
    assert set(record) == {"command", "date", "machine", "versions"}
    assert set(record["versions"]) == {"actshift", "torch", "transformers", "peft", "trl"}
