from __future__ import annotations

from dataclasses import replace

import pytest

from actshift import ActshiftError
from actshift.training import plan
from tests.characters import sums, write_rows


def test_plan_matches_the_run_and_writes_nothing(settings, trained, tmp_path):
    foreseen = plan(replace(settings, eval_share=0.25, rank=32, out=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert (foreseen.trainable, foreseen.share) == (trained.fit.trainable, trained.fit.share)
    assert (foreseen.steps, foreseen.rows, foreseen.eval_rows) == (10, 30, 10)
    assert [place.module for place in foreseen.places] == [f"model.layers.{i}" for i in range(3)]
    assert foreseen.to_dict()["memory_bytes"]["total"] == foreseen.memory.total


def test_plan_of_many_rows_is_estimated_from_a_sample(settings, monkeypatch):
    settings = replace(settings, max_steps=None, max_length=7)
    with pytest.warns(UserWarning, match="6 of 40 rows exceed max_length 7"):
        every = plan(settings)
    monkeypatch.setattr("actshift.training.data.SAMPLE", 20)
    expected = plan(settings)
    assert (expected.to_dict()["sampled"], "sampled" in every.to_dict()) == (20, False)
    assert (expected.longest, expected.steps) == (7, settings.total_steps(expected.rows))
    assert 0 < expected.left_out < 15 and expected.rows + expected.left_out == 40
    assert expected == plan(settings)  # always the same sample


def test_an_error_in_the_sample_names_the_row_of_the_file(settings, monkeypatch, tmp_path):
    monkeypatch.setattr("actshift.training.data.SAMPLE", 20)
    rows = [*sums(20), *[{"prompt": "1 " * 90, "completion": " 2"}] * 20]
    with pytest.raises(ActshiftError, match=r"20 of 40 rows exceed the model's context of 64 tokens with .* row 21"):
        plan(replace(settings, data=str(write_rows(tmp_path / "long.jsonl", rows)), max_length=600))


def test_plan_lists_only_the_steered_layers(settings):
    assert [place.layer for place in plan(replace(settings, layers=("-2:",), adapter="vector")).places] == [1, 2]
