"""The written page of a comparison: Markdown and figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actshift.compare import CompareReport
from actshift.compare.page import draw, markdown
from tests.compare.conftest import report_row


def test_markdown_has_every_seed_every_rate_and_the_provenance(report: CompareReport) -> None:
    text = markdown(report)
    assert "| full fine-tuning | 1,000 | 100% | 5e-6 | 50.0 | 92.0 ± 2.0 | – | 12 |" in text
    assert "| joint, orthogonal | 90 | 9% | 5e-4/5e-5 | 50.0 | 90.5 ± 0.7* | -1.5 | 12 |" in text
    assert "| full fine-tuning | 90.0, 92.0, 94.0 |" in text
    assert "| full fine-tuning | **5e-6: 50.0**, 1e-5: failed |" in text
    assert "2 test rows are also in an earlier split." in text
    assert "`actshift compare`, 2026-01-01, one core; torch 2." in text


def test_figure_is_drawn_with_one_seed_and_without_rows(report: CompareReport, tmp_path: Path) -> None:
    one_seed = replace(report, rows=(report_row("vector", 4, 0.8),))
    for number, drawn in enumerate([report, one_seed, replace(report, rows=(), base_test=None)]):
        path = tmp_path / f"{number}.png"
        draw(drawn, path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3
