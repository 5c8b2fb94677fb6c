"""The whole protocol, on cells with made-up scores."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.compare.compare import locked
from tests.compare.conftest import FakeEngine, Killed, questions, steady, write_rows

FAILS = {("vector", 3e-3, 0), ("mine", 1e-3, 0), ("mine", 2e-3, 0), ("full", 2e-5, 2)}


def test_every_rate_is_validated_and_only_the_chosen_one_is_tested(settings, run) -> None:
    engine = FakeEngine(steady)
    report = run(settings, engine)
    assert sorted(engine.trained) == sorted(
        [
            ("base", 0.0, 0),
            *[("full", rate, 0) for rate in (1e-5, 2e-5)],
            *[("full", 2e-5, seed) for seed in (1, 2)],
            *[("vector", rate, 0) for rate in (1e-3, 2e-3, 3e-3)],
            *[("vector", 3e-3, seed) for seed in (1, 2)],
            *[("mine", rate, 0) for rate in (1e-3, 2e-3)],
            *[("mine", 2e-3, seed) for seed in (1, 2)],
        ]
    )
    chosen = [("full", 2e-5), ("vector", 3e-3), ("mine", 2e-3)]
    assert engine.tested == [("base", 0.0, 0), *[(*cell, seed) for cell in chosen for seed in range(3)]]
    assert [row.rate for row in report.rows] == [rate for _, rate in chosen]
    vector = report.rows[1]
    assert vector.test == pytest.approx([0.52, 0.53, 0.54])
    assert (vector.mean, vector.spread) == pytest.approx((0.53, 0.01))
    assert vector.to_full == pytest.approx(0.53 - report.rows[0].mean)
    assert (vector.state, report.rows[0].to_full, report.base_test) == ("done", None, 0.0)


@pytest.mark.parametrize(
    ("merits", "chosen"),
    [
        ({1e-3: (0.5, 1.0), 2e-3: (0.6, 2.0), 3e-3: (0.4, 0.1)}, 2e-3),
        ({1e-3: (0.5, 1.0), 2e-3: (0.5, 0.9), 3e-3: (0.5, 0.95)}, 2e-3),  # equal accuracy: lower loss
        ({1e-3: (0.5, 1.0), 2e-3: (0.5, 0.9), 3e-3: (0.5, 0.9)}, 2e-3),  # equal in both: lower rate
    ],
)
def test_best_validation_accuracy_then_loss_then_lower_rate_is_chosen(settings, run, merits, chosen) -> None:
    engine = FakeEngine(lambda method, rate, seed: merits.get(rate, (0.1, 1.0)))
    assert run(settings, engine).rows[1].rate == chosen


def test_finished_comparison_runs_no_cell_again(settings, run) -> None:
    report = run(settings, FakeEngine(steady))
    again = FakeEngine(steady)
    assert run(settings, again) == report
    assert (again.trained, again.tested) == ([], [])


@pytest.mark.parametrize("moment", [1, 2, 3, 9, 15, 20, 24])
def test_resuming_after_a_kill_at_any_moment_gives_the_same_table(settings, run, moment) -> None:
    whole = run(replace(settings, out=settings.out + "-whole"), FakeEngine(steady)).to_dict()
    engine = FakeEngine(steady, kill_at=moment)
    with pytest.raises(Killed):
        run(settings, engine)
    report = run(settings, engine).to_dict()
    del whole["made"], report["made"]
    assert report == whole
    assert len(set(engine.trained)) == len(engine.trained) == 14
    assert len(set(engine.tested)) == len(engine.tested) == 10


def test_failed_cell_is_reported_and_the_others_go_on(settings, run) -> None:
    engine = FakeEngine(steady, fails=FAILS)
    full, vector, mine = run(settings, engine).rows
    assert (full.state, len(full.test)) == ("done", 2)
    assert full.failures == ("full, learning rate 2e-05, seed 2: the loss became nan",)
    assert (vector.state, vector.rate, len(vector.test)) == ("done", 2e-3, 3)
    assert vector.sweep[2].failure == "the loss became nan"
    assert (mine.state, mine.rate, mine.test) == ("failed", None, ())


def test_failed_cell_runs_again_unless_its_method_was_tested_without_it(settings, run) -> None:
    run(settings, FakeEngine(steady, fails=FAILS))
    again = FakeEngine(steady)
    full, vector, mine = run(settings, again).rows
    assert sorted(again.trained) == sorted(
        [("full", 2e-5, 2), ("mine", 1e-3, 0), *[("mine", 2e-3, seed) for seed in range(3)]]
    )
    assert (len(full.test), full.failures) == (3, ())
    assert (vector.rate, vector.sweep[2].failure) == (2e-3, "the loss became nan")
    assert (mine.state, mine.failures) == ("done", ())


def test_weights_of_beaten_cells_and_full_models_are_removed(settings, run) -> None:
    run(settings, FakeEngine(steady))
    kept = sorted(str(path.parent.relative_to(settings.out)) for path in Path(settings.out).glob("cells/*/*/weights"))
    assert kept == [
        *[f"cells/mine/lr-0.002-seed-{seed}" for seed in range(3)],
        *[f"cells/vector/lr-0.003-seed-{seed}" for seed in range(3)],
    ]
    settings = replace(settings, out=settings.out + "2", keep_weights=True)
    run(settings, FakeEngine(steady))
    assert len(list(Path(settings.out).glob("cells/full/*/weights"))) == 3


def test_more_seeds_and_methods_extend_the_same_folder(settings, run) -> None:
    run(replace(settings, seeds=1), FakeEngine(steady))
    more = FakeEngine(steady)
    report = run(replace(settings, methods=(*settings.methods, "lora")), FakeEngine(lambda *cell: (0.5, 1.0)))
    assert [len(row.test) for row in report.rows] == [3, 3, 3, 3]
    run(settings, more)
    assert more.trained == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 4}, r"cells/base was made with batch_size 8, not 4. Compare with the same settings, or give"),
        ({"max_new_tokens": 4}, "was made with max_new_tokens None, not 4"),
        ({"objective": "sft"}, "was made with objective None, not 'sft'"),
        ({"limit": 19}, "The train rows differ from the rows that the comparison in"),
        ({"limit": 99}, "was made with limit None, not 99"),
    ],
)
def test_records_made_with_other_settings_are_rejected(settings, run, change, message) -> None:
    run(settings, FakeEngine(steady))
    with pytest.raises(ActshiftError, match=message):
        run(replace(settings, **change), FakeEngine(steady))


def test_records_of_another_rate_grid_are_rejected(settings, run) -> None:
    run(settings, FakeEngine(steady))
    methods = Path(settings.methods[0])
    methods.write_text(methods.read_text().replace("[1e-3, 2e-3, 3e-3]", "[1e-3, 3e-3]"))
    with pytest.raises(ActshiftError, match=r"was made with rates \[0.001, 0.002, 0.003\], not \[0.001, 0.003\]"):
        run(settings, FakeEngine(steady))


def test_folder_with_other_rows_is_rejected(settings, run, tmp_path: Path) -> None:
    run(settings, FakeEngine(steady))
    write_rows(tmp_path / "test.jsonl", questions(30, 5))
    with pytest.raises(
        ActshiftError, match=r"test rows differ from the rows that the comparison in .*table began with"
    ):
        run(settings, FakeEngine(steady))


def test_folder_in_use_or_with_other_files_is_rejected(settings, run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    with pytest.raises(ActshiftError, match="thesis exists and is not empty"):
        run(replace(settings, out=str(tmp_path / "thesis")), FakeEngine(steady))
    with (
        locked(Path(settings.out)),
        pytest.raises(ActshiftError, match=r"Another comparison is running in .*table. Wait"),
    ):
        run(settings, FakeEngine(steady))


def test_table_is_written_as_json_markdown_and_png(settings, run) -> None:
    report = run(settings, FakeEngine(steady))
    out = Path(settings.out)
    assert json.loads((out / "table.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    table = (out / "table.md").read_text()
    assert "| post-block vector | 100 | 9.09% | 3e-3 | 54.0 | 53.0 ± 1.0 |" in table
    assert "**3e-3: 53.0**" in table
    assert (out / "table.png").is_file()
    assert "post-block r=2" in str(report)


def test_prompt_beyond_the_context_is_rejected_before_training(settings, run, tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.jsonl", [{"prompt": "one " * 400, "completion": " 1"}])
    engine = FakeEngine(steady)
    with pytest.raises(ActshiftError, match="In the test rows: 1 of 1 prompts exceed"):
        run(replace(settings, test_data=long), engine)
    assert engine.trained == []


def test_records_of_a_changed_base_are_rejected(settings, run, tmp_path: Path) -> None:
    base = shutil.copytree(settings.model, tmp_path / "base")
    settings = replace(settings, model=str(base))
    run(settings, FakeEngine(steady))
    run(replace(settings, model=f"{base}/"), FakeEngine(steady))  # the same folder
    base.rename(tmp_path / "moved")
    settings = replace(settings, model=str(tmp_path / "moved"))
    assert run(settings, again := FakeEngine(steady)) and again.trained == []
    config = tmp_path / "moved" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-0', '"rms_norm_eps": 2e-0'))
    with pytest.raises(ActshiftError, match=r"base model has changed since .*table was made \(config\); restore it"):
        run(settings, FakeEngine(steady))


def test_records_of_other_versions_warn(settings, run) -> None:
    run(settings, FakeEngine(steady))

    def edit(change) -> None:
        for file in Path(settings.out).glob("cells/**/record.json"):
            record = json.loads(file.read_text())
            change(record["made_with"])
            file.write_text(json.dumps(record))

    edit(lambda made: made["fingerprints"]["versions"].update(torch="2.0.1"))
    with pytest.warns(UserWarning, match=r"table was made with torch 2\.0\.1 \(now 2\."):
        run(settings, FakeEngine(steady))
    edit(lambda made: made.pop("fingerprints"))  # as an older version wrote it
    with pytest.warns(UserWarning, match="An older actshift recorded no fingerprints"):
        run(settings, again := FakeEngine(steady))
    assert again.trained == []
