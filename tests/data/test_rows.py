"""Rows from files and the hub: every format is read, and every problem names its source and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.data import LABELLED, load_rows
from actshift.data.rows import check_rows

PAIR = {"prompt": "1+1=", "completion": "2"}
CHAT = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("a.jsonl", lines(PAIR, {**PAIR, "id": 7}), [PAIR, PAIR]),
        ("a.jsonl", "\n" + lines(PAIR) + "\n", [PAIR]),
        ("a.json", json.dumps([PAIR]), [PAIR]),
        ("a.json", lines(PAIR, PAIR), [PAIR, PAIR]),
        ("a.csv", "completion,prompt\nNA,q\n", [{"prompt": "q", "completion": "NA"}]),
        ("a.csv", "completion,prompt\n007,q\n", [{"prompt": "q", "completion": "007"}]),
        ("a.csv", "\ufefftext\nhello\n", [{"text": "hello"}]),
        ("a.jsonl", lines(CHAT), [CHAT]),
        ("a.jsonl", lines({**PAIR, "text": "no"}), [PAIR]),
    ],
)  # fmt: skip
def test_each_format_is_read_plain_and_compressed(
    tmp_path: Path, name: str, text: str, expected: list[dict[str, object]]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert list(load_rows(str(path))) == expected
    compressed = tmp_path / f"{name}.gz"
    compressed.write_bytes(gzip.compress(text.encode()))
    assert list(load_rows(str(compressed))) == expected


def test_parquet_is_read_and_limit_keeps_the_first_rows(tmp_path: Path) -> None:
    Dataset.from_list([PAIR, {**PAIR, "completion": "3"}]).to_parquet(tmp_path / "a.parquet")
    assert list(load_rows(str(tmp_path / "a.parquet"), limit=1)) == [PAIR]


def test_optional_columns_are_kept_only_if_every_row_has_them() -> None:
    rows = [{**PAIR, "answer": 2, "choices": ["1", "2"]}, {**PAIR, "answer": "2", "id": 7}]
    assert check_rows(rows, "the rows").to_list() == [{**PAIR, "answer": "2"}] * 2
    pair = {"text": "a", "text_pair": "b", "label": 1}
    assert check_rows([pair], "the rows", LABELLED).to_list() == [{**pair, "label": "1"}]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", "", "a.jsonl holds no rows"),
        ("a.csv", "prompt,completion\n", "a.csv holds no rows"),
        ("a.jsonl", lines(PAIR, {"prompt": "q"}), "Row 2 of .*a.jsonl has no completion"),
        ("a.jsonl", lines({"prompt": "q"}, PAIR), "Row 1 of .*a.jsonl has no completion"),
        ("a.jsonl", lines({"prompt": "q"}), "has the columns prompt; a row needs prompt and completion"),
        ("a.jsonl", lines(PAIR, {**PAIR, "completion": " "}), "Row 2 of .* has an empty completion"),
        ("a.jsonl", lines({**PAIR, "completion": 2}), "Row 1 of .* type int; it must be text: 2"),
        ("a.csv", "prompt,completion\nq\n", "Row 1 of .* \\(line 2\\) has 1 field, but the header has 2"),
        ("a.jsonl", lines(PAIR) + '{"prompt"', "Line 2 of .*a.jsonl is not valid JSON"),
        ("a.jsonl", "[1]\n", "Line 1 of .* is a list; it must be an object"),
        ("a.json", "[1]", "Row 1 of .* is a number; it must be an object"),
        ("a.jsonl", lines({"messages": CHAT["messages"][:1]}), "do not end with an assistant's turn"),
        ("a.jsonl", lines({"messages": "hi"}), "not a list of turns"),
        ("a.parquet", "no", "a.parquet cannot be read"),
        ("a.txt", "no", "use one of .jsonl, .json, .csv, .tsv, .parquet"),
        ("a.jsonl.gz", "no", "a.jsonl.gz cannot be read"),
    ],
)
def test_an_error_names_the_problem_and_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ActshiftError, match=message):
        load_rows(str(path))


def test_a_missing_file_and_an_unreachable_dataset_raise() -> None:
    with pytest.raises(ActshiftError, match=r"There is no file nowhere\.jsonl"):
        load_rows("nowhere.jsonl")
    with pytest.raises(ActshiftError, match="it is not a file, and no split 'train' of a dataset with this id"):
        load_rows("somebody/some-rows")


def test_a_folder_that_is_not_a_dataset_raises(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt"')
    with pytest.raises(ActshiftError, match="There is no data at"):
        load_rows(str(tmp_path))
