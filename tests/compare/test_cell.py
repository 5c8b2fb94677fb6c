"""The work of one cell, in this process: a real training of the bundled model, its scores and its record."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from actshift.compare.cell import CellJob, Record, run_job
from actshift.demo import BASE_DIR
from actshift.training import TrainSettings
from tests.compare.conftest import questions, write_rows


def make_job(folder: Path, trains: bool) -> CellJob:
    folder.mkdir(parents=True)
    rows = {name: write_rows(folder / f"{name}.jsonl", questions(i, 4)) for i, name in enumerate(("train", "test"))}
    settings = TrainSettings(
        model=str(BASE_DIR), data=rows["train"], eval_data=rows["test"], out=str(folder / "weights"),
        adapter="vector", max_steps=2, batch_size=2, gradient_accumulation=1,
    )  # fmt: skip
    return CellJob(str(folder), settings, trains, None, 2, None, 4, {"rank": 8}, False)


def test_job_trains_and_scores_only_what_its_record_lacks(tmp_path: Path) -> None:
    job = make_job(tmp_path / "cell", trains=True)
    run_job(job)
    record = Record.read(tmp_path / "cell")
    assert record and record.fit and record.test is None
    assert (record.fit.trainable, record.validation.total, record.made_with) == (6 * 128, 4, {"rank": 8})
    run_job(replace(job, test=job.settings.eval_data))
    scored = Record.read(tmp_path / "cell")
    assert scored and scored.test and scored.test.correct == record.validation.correct
    assert replace(scored, test=None) == record


def test_job_of_the_base_scores_without_training(tmp_path: Path) -> None:
    run_job(make_job(tmp_path / "base", trains=False))
    record = Record.read(tmp_path / "base")
    assert record and record.fit is None and record.parameters == 1_298_432
    assert not (tmp_path / "base" / "weights").exists()


@pytest.mark.slow
def test_a_record_without_weights_is_trained_again_for_the_test_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path / "cell", trains=True)
    run_job(job)
    first = Record.read(tmp_path / "cell")
    shutil.rmtree(tmp_path / "cell" / "weights")  # as if the record came from another machine
    run_job(replace(job, test=job.settings.eval_data))
    record = Record.read(tmp_path / "cell")
    assert first and record and record.test and record.fit and first.fit
    assert record.test.outcomes == record.validation.outcomes == first.validation.outcomes
    assert record.fit.eval_loss == first.fit.eval_loss
