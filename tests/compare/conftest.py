"""A comparison whose cells take no time: a function makes up their scores, and every use of a split is recorded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from actshift.compare import CompareReport, CompareSettings, ReportRow, compare
from actshift.compare.cell import Record, Score
from actshift.compare.job import CellJob
from actshift.compare.methods import METHODS as NAMED_METHODS
from actshift.compare.report import SweepPoint
from actshift.demo import BASE_DIR
from actshift.training import FitResult

TOTAL = 1000


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass
class FakeEngine:
    """Finishes each job on submission, in this process; `merit` returns a cell's validation accuracy and loss."""

    merit: Callable[[str, float, int], tuple[float, float]]
    fails: set[tuple[str, float, int]] = field(default_factory=set)
    trained: list[tuple[str, float, int]] = field(default_factory=list)
    tested: list[tuple[str, float, int]] = field(default_factory=list)
    kill_at: int | None = None
    steps: int = 0

    def do(self, job: CellJob) -> str | None:
        folder, settings = Path(job.folder), job.settings
        cell = ("base", 0.0, 0)
        if job.trains:
            cell = (folder.parent.name, settings.learning_rate, settings.seed)
        if cell in self.fails:
            return "the loss became nan"
        folder.mkdir(parents=True, exist_ok=True)
        record = Record.read(folder)
        if record is None:
            self._count_step()
            if job.trains:
                (folder / "weights").mkdir()
            accuracy, loss = self.merit(*cell)
            fit = FitResult(10, 0.5, loss, 8, 80, 0, 100, 1100, 1.5) if job.trains else None
            record = Record(job.made_with, 1100 if fit else 1000, fit, Score(round(accuracy * TOTAL), TOTAL, 0.1))
            self.trained.append(cell)
            record.write(folder)
        if job.test and record.test is None:
            self._count_step()
            assert (folder / "weights").is_dir() == job.trains, "the weights to test were dropped"
            self.tested.append(cell)
            replace(record, test=Score(record.validation.correct - 10, TOTAL, 0.1)).write(folder)
        return None

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    def pool(self, count: int) -> FakeEngine:
        return self

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, job: CellJob) -> Future[str | None]:
        future: Future[str | None] = Future()
        future.set_result(self.do(job))
        return future


def questions(start: int, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{n} =", "completion": f" {n}"} for n in range(start, start + count)]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


METHODS = """
common: {epochs: 2}
methods:
  full: {rates: [1e-5, 2e-5]}
  vector: {rates: [1e-3, 2e-3, 3e-3]}
  mine: {label: post-block r=2, settings: {rank: 2}, rates: [1e-3, 2e-3]}
"""


@pytest.fixture
def settings(tmp_path: Path) -> CompareSettings:
    (tmp_path / "methods.yaml").write_text(METHODS)
    return CompareSettings(
        model=str(BASE_DIR),
        data=write_rows(tmp_path / "train.jsonl", questions(0, 20)),
        eval_data=write_rows(tmp_path / "validation.jsonl", questions(20, 5)),
        test_data=write_rows(tmp_path / "test.jsonl", questions(25, 5)),
        methods=(str(tmp_path / "methods.yaml"),),
        out=str(tmp_path / "table"),
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[CompareSettings, FakeEngine], CompareReport]:
    def run(settings: CompareSettings, engine: FakeEngine) -> CompareReport:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["actshift.compare.compare"], "WorkerPool", engine.pool)
            patch.setattr("actshift.compare.page.draw", lambda report, path: path.write_bytes(b""))
            return compare(settings)

    return run


def steady(method: str, rate: float, seed: int) -> tuple[float, float]:
    """Prefer the highest rate, and later seeds by a little."""
    start, slope = {"base": (0.01, 0), "full": (0.8, 1000), "vector": (0.5, 10), "mine": (0.6, 10)}[method]
    return start + slope * rate + 0.01 * seed, 1.0


PROTOCOL = {
    "model": "base",
    "seeds": 3,
    "scorer": "exact match",
    "rows": {"train": 80, "validation": 10, "test": 2000},
    "shared_rows": {"validation": 0, "test": 2},
}
MADE = {"command": "actshift compare", "date": "2026-01-01", "machine": "one core", "versions": {"torch": "2"}}


def report_row(name: str, trainable: int, *test: float) -> ReportRow:
    method = NAMED_METHODS[name]
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
    rows = (
        report_row("full", 1000, 0.9, 0.92, 0.94),
        report_row("joint", 90, 0.9, 0.91),
        report_row("vector", 4, 0.8, 0.8, 0.8),
    )
    return CompareReport(PROTOCOL, 1000, 0.2, 0.25, rows, MADE)
