from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.compare import CompareSettings
from actshift.compare.splits import read_splits
from actshift.demo import BASE_DIR
from tests.compare.conftest import questions, write_rows

COMMON = {"model": str(BASE_DIR)}


def prompts(rows: tuple[str, ...]) -> set[str]:
    return {json.loads(row)["prompt"] for row in rows}


def test_what_has_no_source_is_a_tenth_of_the_data_and_the_same_each_time(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", questions(0, 100))
    settings = CompareSettings(model="m", data=data, out="t")
    splits = read_splits(settings, COMMON)
    assert splits.sizes == {"train": 80, "validation": 10, "test": 10}
    assert len(prompts(splits.train) | prompts(splits.validation) | prompts(splits.test)) == 100
    assert splits == read_splits(settings, COMMON)
    test = write_rows(tmp_path / "test.jsonl", questions(100, 7))
    assert read_splits(replace(settings, test_data=test), COMMON).sizes == {"train": 90, "validation": 10, "test": 7}


def test_rows_with_one_prompt_stay_on_one_side_of_a_cut(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n // 4} =", "completion": f" {n % 3}"} for n in range(100)]
    splits = read_splits(CompareSettings(model="m", data=write_rows(tmp_path / "rows.jsonl", rows), out="t"), COMMON)
    train, validation, test = map(prompts, (splits.train, splits.validation, splits.test))
    assert not train & validation and not train & test and not validation & test


def test_shared_rows_are_counted_and_a_split_that_is_all_shared_is_refused(settings, tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", questions(23, 5))
    with pytest.warns(UserWarning, match="2 of 5 rows of the test split are in a split before it too"):
        assert read_splits(settings, COMMON).shared == {"validation": 0, "test": 2}
    with pytest.raises(ActshiftError, match="All 20 rows of the validation split are in a split before it"):
        read_splits(replace(settings, eval_data=settings.data), COMMON)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"text": "one"}], "has text only; exact match needs prompt and completion, or messages"),
        (questions(0, 3), "3 rows in .* are too few to cut validation and test rows from"),
    ],
)
def test_rows_that_cannot_be_compared_on_are_refused(tmp_path: Path, rows, told: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ActshiftError, match=told):
        read_splits(CompareSettings(model="m", data=data, out="t"), COMMON)
