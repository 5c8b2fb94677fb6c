"""The study on real models: its records, and its bootstrap intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import real_study

    monkeypatch.setattr(real_study, "RECORDS", tmp_path / "committed")
    yield real_study
    sys.modules.pop("real_study")


def test_records_move_to_another_machine_without_its_paths(study: Any, tmp_path: Path) -> None:
    listops = study.STUDIES["smollm2"][0]
    here, there = tmp_path / "here", tmp_path / "there"
    for cell in ("base", "lora/lr-0.001-seed-0"):
        folder = listops.table(here) / "cells" / cell
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"made_with": {"model": str(tmp_path)}, "test": cell}))
    study.export_records("smollm2", listops, here)
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "committed").rglob("*.json"))
    study.import_records("smollm2", listops, there)
    record = listops.table(there) / "cells" / "lora" / "lr-0.001-seed-0" / "record.json"
    assert json.loads(record.read_text()) == {"made_with": {"model": "smollm2"}, "test": "lora/lr-0.001-seed-0"}
    assert set(study.read_records("smollm2", "listops")) == {"base", "lora"}
    record.write_text("{}")  # a newer record here is kept
    study.import_records("smollm2", listops, there)
    assert record.read_text() == "{}"


def test_every_study_names_known_methods(study: Any, tmp_path: Path) -> None:
    for model, studies in study.STUDIES.items():
        for item in studies:
            rows = tmp_path / "rows" / item.task
            rows.mkdir(parents=True, exist_ok=True)
            (rows / "train.jsonl").write_text("{}\n" * 200)
            settings = item.settings(Path(model), tmp_path / "rows", tmp_path / "out", jobs=1, precision="fp32")
            assert settings.seeds == item.seeds
            lines = Path(settings.data).read_text().splitlines()
            assert len(lines) == min(item.limit or 200, 200)


def test_bootstrap_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from real_bootstrap import accuracy_interval, difference_interval

    half = "10" * 200
    alone = accuracy_interval([half, half])
    assert alone.mean == 50 and 44 < alone.low < 46 and 54 < alone.high < 56  # ± 1.96 · 50 / √400
    same = difference_interval([half], [half])
    assert same == (0, 0, 0)  # paired by row: the rows cancel
    other = "01" * 200
    unpaired = difference_interval([half], [other])
    assert unpaired.low < -8 and unpaired.high > 8
    seeds = difference_interval(["1" * 400, "0" * 400], [half])
    assert seeds.low == pytest.approx(-50, abs=6) and seeds.high == pytest.approx(50, abs=6)  # seeds vary, not rows
