"""Reading and cutting the splits of a comparison."""

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


def test_split_without_a_source_is_the_same_tenth_of_the_data_each_time(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", questions(0, 100))
    settings = CompareSettings(model="m", data=data, out="t")
    splits = read_splits(settings, COMMON)
    assert splits.sizes == {"train": 80, "validation": 10, "test": 10}
    assert len(prompts(splits.train) | prompts(splits.validation) | prompts(splits.test)) == 100
    assert splits == read_splits(settings, COMMON)
    test = write_rows(tmp_path / "test.jsonl", questions(100, 7))
    assert read_splits(replace(settings, test_data=test), COMMON).sizes == {"train": 90, "validation": 10, "test": 7}


def test_a_limit_counts_the_rows_of_each_source(settings) -> None:
    assert read_splits(settings, {**COMMON, "limit": 3}).sizes == {"train": 3, "validation": 3, "test": 3}
    cut = replace(settings, eval_data=None, test_data=None)
    assert read_splits(cut, {**COMMON, "limit": 10}).sizes == {"train": 8, "validation": 1, "test": 1}


def test_rows_with_the_same_prompt_stay_in_one_split(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n // 4} =", "completion": f" {n % 3}"} for n in range(100)]
    splits = read_splits(CompareSettings(model="m", data=write_rows(tmp_path / "rows.jsonl", rows), out="t"), COMMON)
    train, validation, test = map(prompts, (splits.train, splits.validation, splits.test))
    assert not train & validation and not train & test and not validation & test


def test_shared_rows_warn_and_a_fully_shared_split_is_rejected(settings, tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", questions(23, 5))
    with pytest.warns(UserWarning, match="2 of 5 rows of the test split are also in an earlier split"):
        assert read_splits(settings, COMMON).shared == {"validation": 0, "test": 2}
    with pytest.raises(ActshiftError, match="All 20 rows of the validation split are also in an earlier split"):
        read_splits(replace(settings, eval_data=settings.data), COMMON)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "one"}], "has text only. Exact match needs prompt and completion, or messages"),
        (questions(0, 3), "3 rows in .* are too few to cut validation and test rows from"),
    ],
)
def test_rows_without_answers_and_too_few_rows_are_rejected(tmp_path: Path, rows, message: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ActshiftError, match=message):
        read_splits(CompareSettings(model="m", data=data, out="t"), COMMON)


def test_splits_are_cut_from_several_files_with_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], "completion": row["completion"]} for row in questions(0, 40)]
    files = tuple(write_rows(tmp_path / f"{n}.jsonl", rows[20 * n : 20 * n + 20]) for n in range(2))
    settings = CompareSettings(model="m", data=files, map=("prompt=question",), out="t")
    splits = read_splits(settings, COMMON)
    assert splits.sizes == {"train": 32, "validation": 4, "test": 4}
    assert splits.dataset("train", 1)[0].keys() == {"prompt", "completion"}
    with pytest.raises(ActshiftError, match="Weights of data would repeat rows"):
        read_splits(replace(settings, data=tuple(f"{file}=1" for file in files)), COMMON)


def test_preferences_of_whole_chats_are_cut_by_their_questions(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}] for n in range(20)]
    data = write_rows(tmp_path / "rows.jsonl", [{"chosen": chat, "rejected": chat} for chat in chats])
    splits = read_splits(CompareSettings(model="m", data=data, out="t"), {**COMMON, "objective": "dpo"})
    assert splits.sizes == {"train": 16, "validation": 2, "test": 2}
