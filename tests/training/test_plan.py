from __future__ import annotations

from dataclasses import replace

from actshift.training import plan


def test_plan_matches_the_run_and_writes_nothing(settings, trained, tmp_path):
    foreseen = plan(replace(settings, eval_share=0.25, rank=32, out=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert (foreseen.trainable, foreseen.share) == (trained.fit.trainable, trained.fit.share)
    assert (foreseen.steps, foreseen.rows, foreseen.eval_rows) == (10, 30, 10)
    assert [place.module for place in foreseen.places] == [f"model.layers.{i}" for i in range(3)]
    assert foreseen.to_dict()["memory_bytes"]["total"] == foreseen.memory.total


def test_plan_lists_only_the_steered_layers(settings):
    assert [place.layer for place in plan(replace(settings, layers=("-2:",), adapter="vector")).places] == [1, 2]
