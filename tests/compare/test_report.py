"""Tables and figure of a report, finished and in progress."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from actshift.compare import CompareReport, ReportRow
from actshift.compare.figure import draw
from actshift.compare.methods import METHODS
from actshift.compare.protocol import SweepState
from actshift.compare.provenance import provenance
from actshift.compare.report import SweepPoint, build_report, markdown, rich_table, short_rate

PROTOCOL = {
    "model": "base",
    "seeds": 3,
    "scorer": "exact match",
    "rows": {"train": 80, "validation": 10, "test": 2000},
    "shared_rows": {"validation": 0, "test": 2},
}
MADE = {"command": "actshift compare", "date": "2026-01-01", "machine": "one core", "versions": {"torch": "2"}}


def row(name: str, trainable: int, *test: float) -> ReportRow:
    method = METHODS[name]
    return ReportRow(
        method=name,
        label=method.label,
        settings=method.settings,
        state="done",
        trainable=trainable,
        share=trainable / 1000,
        rate=method.rates[0],
        lora_rate=method.lora_rates[0] if method.lora_rates else None,
        validation=(0.5,),
        test=test,
        to_full=None if name == "full" else -0.015,
        sweep=(
            SweepPoint(method.rates[0], 0.5, 1.0, None),
            SweepPoint(method.rates[1], None, None, "the loss became nan"),
        ),
        failures=(),
        seconds=12.3,
    )


@pytest.fixture
def report() -> CompareReport:
    rows = (row("full", 1000, 0.9, 0.92, 0.94), row("joint", 90, 0.9, 0.91), row("vector", 4, 0.8, 0.8, 0.8))
    return CompareReport(PROTOCOL, 1000, 0.2, 0.25, rows, MADE)


def test_terminal_table_fits_eighty_columns(report: CompareReport) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(rich_table(report))
    text = screen.getvalue()
    assert "92.0 ± 2.0" in text and "90.5 ± 0.7*" in text and "5e-4/5e-5" in text and "…" not in text


def test_markdown_has_every_seed_every_rate_and_the_provenance(report: CompareReport) -> None:
    text = markdown(report)
    assert "| full fine-tuning | 1,000 | 100% | 5e-6 | 50.0 | 92.0 ± 2.0 | – | 12 |" in text
    assert "| joint, orthogonal | 90 | 9% | 5e-4/5e-5 | 50.0 | 90.5 ± 0.7* | -1.5 | 12 |" in text
    assert "| full fine-tuning | 90.0, 92.0, 94.0 |" in text
    assert "| full fine-tuning | **5e-6: 50.0**, 1e-5: failed |" in text
    assert "2 test rows are also in an earlier split." in text
    assert "`actshift compare`, 2026-01-01, one core; torch 2." in text


def test_report_before_the_first_cell_prints() -> None:
    text = str(build_report(SweepState(list(METHODS.values()), seeds=3), PROTOCOL, {}))
    assert text.count("waiting") == len(METHODS)


@pytest.mark.parametrize(("rate", "text"), [(2e-3, "2e-3"), (1.5e-3, "1.5e-3"), (1e-5, "1e-5"), (1.0, "1e0")])
def test_short_rate_drops_zeros(rate: float, text: str) -> None:
    assert short_rate(rate) == text


def test_figure_is_drawn_with_one_seed_and_without_rows(report: CompareReport, tmp_path: Path) -> None:
    one_seed = replace(report, rows=(row("vector", 4, 0.8),))
    for number, drawn in enumerate([report, one_seed, replace(report, rows=(), base_test=None)]):
        path = tmp_path / f"{number}.png"
        draw(drawn, path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3


def test_provenance_records_command_date_machine_and_versions() -> None:
    record = provenance("actshift compare")
    assert record["command"] == "actshift compare"
    assert set(record) == {"command", "date", "machine", "versions"}
    assert set(record["versions"]) == {"actshift", "torch", "transformers", "peft", "trl"}
