"""The protocol, on cells whose scores are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.compare.folder import CompareFolder
from tests.compare.conftest import Killed, Laboratory, questions, steady, write_rows

FAILS = {("vector", 3e-3, 0), ("mine", 1e-3, 0), ("mine", 2e-3, 0), ("full", 2e-5, 2)}


def test_every_rate_meets_the_validation_rows_and_only_the_chosen_one_the_test_rows(settings, run) -> None:
    laboratory = Laboratory(steady)
    report = run(settings, laboratory)
    assert sorted(laboratory.trained) == sorted(
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
    assert laboratory.tested == [("base", 0.0, 0), *[(*cell, seed) for cell in chosen for seed in range(3)]]
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
        ({1e-3: (0.5, 1.0), 2e-3: (0.5, 0.9), 3e-3: (0.5, 0.95)}, 2e-3),  # equally accurate: the lower loss
        ({1e-3: (0.5, 1.0), 2e-3: (0.5, 0.9), 3e-3: (0.5, 0.9)}, 2e-3),  # equal in both: the lower rate
    ],
)
def test_what_is_chosen(settings, run, merits, chosen) -> None:
    laboratory = Laboratory(lambda method, rate, seed: merits.get(rate, (0.1, 1.0)))
    assert run(settings, laboratory).rows[1].rate == chosen


def test_a_finished_comparison_is_only_reported(settings, run) -> None:
    report = run(settings, Laboratory(steady))
    again = Laboratory(steady)
    assert run(settings, again) == report
    assert (again.trained, again.tested) == ([], [])


@pytest.mark.parametrize("moment", [1, 2, 3, 9, 15, 20, 24])
def test_killed_at_any_moment_it_goes_on_to_the_same_table(settings, run, moment) -> None:
    whole = run(replace(settings, out=settings.out + "-whole"), Laboratory(steady)).to_dict()
    laboratory = Laboratory(steady, kill_at=moment)
    with pytest.raises(Killed):
        run(settings, laboratory)
    report = run(settings, laboratory).to_dict()
    del whole["made"], report["made"]
    assert report == whole
    assert len(set(laboratory.trained)) == len(laboratory.trained) == 14
    assert len(set(laboratory.tested)) == len(laboratory.tested) == 10


def test_a_cell_that_fails_is_reported_and_stops_no_other(settings, run) -> None:
    laboratory = Laboratory(steady, fails=FAILS)
    full, vector, mine = run(settings, laboratory).rows
    assert (full.state, len(full.test)) == ("done", 2)
    assert full.failures == ("full, learning rate 2e-05, seed 2: the loss became nan",)
    assert (vector.state, vector.rate, len(vector.test)) == ("done", 2e-3, 3)
    assert vector.sweep[2].failure == "the loss became nan"
    assert (mine.state, mine.rate, mine.test) == ("failed", None, ())


def test_what_failed_is_tried_again_unless_its_method_has_met_the_test_rows_without_it(settings, run) -> None:
    run(settings, Laboratory(steady, fails=FAILS))
    again = Laboratory(steady)
    full, vector, mine = run(settings, again).rows
    assert sorted(again.trained) == sorted(
        [("full", 2e-5, 2), ("mine", 1e-3, 0), *[("mine", 2e-3, seed) for seed in range(3)]]
    )
    assert (len(full.test), full.failures) == (3, ())
    assert (vector.rate, vector.sweep[2].failure) == (2e-3, "the loss became nan")
    assert (mine.state, mine.failures) == ("done", ())


def test_weights_of_losers_and_of_whole_models_are_dropped(settings, run) -> None:
    run(settings, Laboratory(steady))
    kept = sorted(str(path.parent.relative_to(settings.out)) for path in Path(settings.out).glob("cells/*/*/weights"))
    assert kept == [
        *[f"cells/mine/lr-0.002-seed-{seed}" for seed in range(3)],
        *[f"cells/vector/lr-0.003-seed-{seed}" for seed in range(3)],
    ]
    settings = replace(settings, out=settings.out + "2", keep_weights=True)
    run(settings, Laboratory(steady))
    assert len(list(Path(settings.out).glob("cells/full/*/weights"))) == 3


def test_more_seeds_and_more_methods_go_into_the_same_folder(settings, run) -> None:
    run(replace(settings, seeds=1), Laboratory(steady))
    more = Laboratory(steady)
    report = run(replace(settings, methods=(*settings.methods, "lora")), Laboratory(lambda *cell: (0.5, 1.0)))
    assert [len(row.test) for row in report.rows] == [3, 3, 3, 3]
    run(settings, more)
    assert more.trained == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 4}, r"cells/base was made with batch_size 8, not 4; compare with the same settings, or into"),
        ({"max_new_tokens": 4}, "was made with max_new_tokens 64, not 4"),
        ({"objective": "sft"}, "was made with objective None, not 'sft'"),
    ],
)
def test_records_made_with_other_settings_are_refused(settings, run, change, told) -> None:
    run(settings, Laboratory(steady))
    with pytest.raises(ActshiftError, match=told):
        run(replace(settings, **change), Laboratory(steady))


def test_records_of_another_grid_are_refused_since_their_choice_was_another(settings, run) -> None:
    run(settings, Laboratory(steady))
    methods = Path(settings.methods[0])
    methods.write_text(methods.read_text().replace("[1e-3, 2e-3, 3e-3]", "[1e-3, 3e-3]"))
    with pytest.raises(ActshiftError, match=r"was made with rates \[0.001, 0.002, 0.003\], not \[0.001, 0.003\]"):
        run(settings, Laboratory(steady))


def test_other_rows_are_refused(settings, run, tmp_path: Path) -> None:
    run(settings, Laboratory(steady))
    write_rows(tmp_path / "test.jsonl", questions(30, 5))
    with pytest.raises(ActshiftError, match=r"test rows are not those that the comparison in .*table began with"):
        run(settings, Laboratory(steady))


def test_a_folder_of_something_else_and_one_in_use_are_refused(settings, run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    with pytest.raises(ActshiftError, match="thesis holds something other than a comparison"):
        run(replace(settings, out=str(tmp_path / "thesis")), Laboratory(steady))
    with (
        CompareFolder(Path(settings.out)).locked(),
        pytest.raises(ActshiftError, match=r"Another comparison is running in .*table; wait"),
    ):
        run(settings, Laboratory(steady))


def test_what_is_written(settings, run) -> None:
    report = run(settings, Laboratory(steady))
    out = Path(settings.out)
    assert json.loads((out / "table.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    table = (out / "table.md").read_text()
    assert "| post-block vector | 100 | 9.09% | 3e-3 | 54.0 | 53.0 ± 1.0 |" in table
    assert "**3e-3: 53.0**" in table
    assert (out / "table.png").is_file()
    assert "post-block r=2" in str(report)


def test_a_prompt_beyond_the_context_is_told_before_anything_is_trained(settings, run, tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.jsonl", [{"prompt": "one " * 400, "completion": " 1"}])
    laboratory = Laboratory(steady)
    with pytest.raises(ActshiftError, match="Of the test rows: 1 of 1 prompts exceed"):
        run(replace(settings, test_data=long), laboratory)
    assert laboratory.trained == []
