"""The rendered page of results."""

from __future__ import annotations

import json

import pytest

from benchmarks import page
from benchmarks.bars import Bar
from benchmarks.figure import Figure, Note

CONDITIONS = {"date": "2026-11-30T00:00", "commit": "abc1234", "seconds": 7, "load": [0.1, 1.0], "share": 0.99}
RESULTS = [
    Figure("step", "ours", "d 256, 8 layers", 12.345, 12.0, 13.0, unit="ms"),
    Figure("over the floor", "ours", "d 256, 8 layers", 1.05, 1.04, 1.06),
    Figure("step", "LoRA", "d 256, 8 layers", 1234.5, unit="ms"),
    Figure("over the floor", "ours", "d 768, 4 layers", 1.01),
    Note("A note."),
]


def written(results=RESULTS) -> str:
    part = json.loads(json.dumps({**CONDITIONS, **page.as_json(results)}))
    return page.page({"machine": {"cores": 2, "gpu": None}, "suites": {"training": part}})


@pytest.fixture
def bar(monkeypatch):
    def put(where: str, most: float, reason: str = "for a reason") -> None:
        monkeypatch.setattr(page, "BARS", (Bar("the step", "training", "over the floor", "ours", where, most, reason),))

    return put


def test_cases_are_rows_and_names_are_columns():
    text = written()
    assert "**d 256, 8 layers**" in text and "**d 768, 4 layers**" in text
    assert "|  | step, ms | over the floor |" in text
    assert "| ours | 12.35 (12.00 to 13.00) | 1.050 (1.040 to 1.060) |" in text
    assert "| LoRA | 1,234 |  |" in text


def test_the_page_shows_notes_and_the_conditions_of_the_run():
    text = written()
    assert "cores 2." in text and "gpu" not in text.split("##")[0]
    assert "A note.\n" in text
    assert "_2026-11-30T00:00, commit abc1234, 7 s, load 0.1 before and 1.0 after, 99% of a core_" in text


def test_a_missed_bar_shows_its_reason(bar):
    bar("d 256", 1.04)
    assert "| the step | d 256, 8 layers | ≤ 1.04 | 1.050 (1.040 to 1.060) | **missed**: for a reason |" in written()
    bar("d 256", 1.04, reason="")
    assert "| 1.050 (1.040 to 1.060) | **missed** |" in written()


def test_a_bar_that_is_met_shows_no_reason(bar):
    bar("d 768", 1.02)
    text = written()
    assert "| 1.010 | met |" in text and "for a reason" not in text


def test_a_bar_applies_to_all_its_tables(bar):
    bar("d ", 1.02)
    text = written()
    assert "**missed**" in text and "| met |" in text


def test_a_bar_without_figures_is_not_measured(bar):
    bar("d 4096", 1.04)
    assert "| the step | d 4096 | ≤ 1.04 | not measured | for a reason |" in written()
