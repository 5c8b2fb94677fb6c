"""Custom tasks: files that describe one, and the errors of files that do not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.tasks.catalogue import PAGE

MINIMAL = {"data": "rows.jsonl", "prompt": "{a} + {b} =", "completion": " {c}"}
ROWS = [{"a": number, "b": 1, "c": number + 1} for number in range(30)]


@pytest.fixture
def describe(tmp_path: Path):
    """Return a function that writes a task file, `MINIMAL` with changes, and its rows."""

    def write(**changes: Any) -> Path:
        (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
        path = tmp_path / "sums.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in {**MINIMAL, **changes}.items() if value != ""}))
        return path

    return write


def test_the_example_in_the_docs_runs(tmp_path: Path) -> None:
    rows, task = re.findall(r"```(?:json|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "capitals.jsonl").write_text(rows)
    (tmp_path / "capitals.yaml").write_text(task)
    capitals = get_task(tmp_path / "capitals.yaml")
    assert (capitals.name, capitals.scorer.name, capitals.settings["epochs"], capitals.max_new_tokens) == (
        "capitals",
        "exact",
        3,
        8,
    )
    examples = [example for split in ("train", "validation", "test") for example in capitals.examples(split)]
    assert {example.completion for example in examples} == {" Paris", " Lima", " Tokyo"}
    assert len(capitals.load("train")) > 0
    for example in examples:
        assert capitals.scorer(example.completion, {"answer": example.answer})


def test_one_file_is_divided_into_three_splits(describe) -> None:
    task = get_task(describe(scorer="number"))
    sizes = [len(task.load(split)) for split in ("train", "validation", "test")]
    assert sum(sizes) == 30 and sizes[0] > sizes[1] > 0
    assert task.load("train")[0] == {"prompt": "0 + 1 =", "completion": " 1", "answer": "1"}


def test_a_json_task_may_name_a_file_for_each_split(describe, tmp_path: Path) -> None:
    describe()
    path = tmp_path / "sums.json"
    path.write_text(json.dumps({**MINIMAL, "data": {"test": "rows.jsonl"}, "answer": "c", "choices": ["1", "2"]}))
    task = get_task(path)
    assert task.load("test", limit=1).to_list() == [
        {"prompt": "0 + 1 =", "completion": " 1", "answer": "1", "choices": ["1", "2"]}
    ]
    with pytest.raises(ActshiftError, match="sums has no split train; it has test"):
        task.load("train")
    with pytest.raises(ActshiftError, match="names its own rows; leave out --data-dir"):
        task.load("test", tmp_path)


def test_shares_and_named_splits_of_a_dataset_on_the_hub(describe, serve) -> None:
    requests = serve(ROWS)
    path = describe(data="", hub="me/sums", revision="abc", splits={"train": 0.9, "validation": 0.1, "test": "dev"})
    assert len(get_task(path).load("test")) == 30
    assert requests == [{"id": "me/sums", "config": None, "split": "dev", "revision": "abc"}]
    get_task(path).load("train")
    assert requests[-1]["split"] == "train"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promt": "x"}, r"Unknown key of the task file .*'promt' \(did you mean 'prompt'\?\)"),
        ({"prompt": ""}, "has no prompt: text in which {column} stands for a column"),
        ({"prompt": "{a} = "}, "ends in white space.*start of the completion"),
        ({"completion": 3}, "completion cannot be 3"),
        ({"data": ""}, "must name the source of its rows"),
        ({"hub": "me/sums"}, "must name the source of its rows"),
        (
            {"splits": {"train": 0.8, "dev": 0.2}},
            "Unknown split in the task file .*'dev'. Use one of train, validation, test",
        ),
        ({"splits": {"train": 0.8, "test": 0.3}}, "a share above 0, and all shares at most 1 together"),
        ({"splits": {"train": 0}}, "a share above 0"),
        ({"splits": {"train": "all", "test": [1]}}, "a split must be a name or a share"),
        ({"splits": {"train": "rows"}}, "is one file without a split 'rows'"),
        ({"data": {"train": "rows.jsonl"}, "splits": {"train": 1.0}}, "leave out splits"),
        ({"scorer": "numbr"}, "did you mean 'number'"),
    ],
)
def test_a_wrong_task_file_raises_before_any_row_is_read(describe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        get_task(describe(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "{aa} ="}, r"Row 1 of .*rows.jsonl has no aa\."),
        ({"answer": "gold"}, r"Row 1 of .*rows.jsonl has no gold\."),
        ({"data": "none.jsonl"}, "There is no file .*none.jsonl"),
    ],
)
def test_rows_that_do_not_fit_the_task_raise(describe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        get_task(describe(**changes)).load("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must contain one 'name: value' per line"),
        ("a: [", "is not valid"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_not_a_mapping_raises(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "task.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ActshiftError, match=message):
        get_task(path)
