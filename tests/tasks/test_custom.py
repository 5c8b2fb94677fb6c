"""Custom tasks: files that describe one, and the errors of files that do not."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.tasks.catalogue import PAGE
from actshift.tasks.custom import SETTINGS
from actshift.tasks.source import SplitSlice
from actshift.training import TrainSettings

MINIMAL = {"data": "rows.jsonl", "prompt": "{a} + {b} =", "completion": " {c}"}
ROWS = [{"a": number, "b": 1, "c": number + 1, "the sum": f"{number}+1"} for number in range(30)]


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
        ({"choices": [True, "no"]}, r'choices cannot contain True; write texts in quotes, as in \["yes", "no"\]'),
        ({"choices": ["yes", None]}, "choices cannot contain None"),
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
        ({"prompt": "{a!r} ="}, r"Row 1 of .*rows.jsonl cannot fill {a!r}: write a column without a format"),
        ({"prompt": "{the sums} ="}, r"Row 1 of .*rows.jsonl has no column 'the sums' .*did you mean 'the sum'"),
        ({"choices": "b"}, "Row 1 of .* has no list of texts in the column b"),
        ({"data": "none.jsonl"}, "There is no file .*none.jsonl"),
    ],
)
def test_rows_that_do_not_fit_the_task_raise(describe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        get_task(describe(**changes)).load("train")


def test_columns_may_have_any_name_and_other_braces_are_text(describe) -> None:
    path = describe(data={"test": "rows.jsonl"}, prompt='{the sum} {"x": 1} \\sqrt{5 y} =')
    assert get_task(path).load("test", limit=1)[0]["prompt"] == '0+1 {"x": 1} \\sqrt{5 y} ='


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


def test_a_task_sets_every_training_setting_but_code_models_and_files(describe) -> None:
    refused = {item.name for item in fields(TrainSettings)} - {*SETTINGS}
    assert {*SETTINGS} <= {item.name for item in fields(TrainSettings)}
    assert refused == {
        *("model", "revision", "data", "task", "data_dir", "out", "eval_data", "start", "interventions"),
        *("reward", "trust_remote_code", "cache_prefix", "cache_limit", "map", "limit"),
    }
    for name in [*refused, "__class__", "learning-rate", "config", "resume"]:
        with pytest.raises(ActshiftError, match=f"cannot set {name!r}.*Use a flag of the command"):
            get_task(describe(settings={name: True}))
    assert get_task(describe(settings={"learning_rate": "5e-4", "rank": 2})).settings["rank"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hub": "../folder", "data": ""}, "hub must be the id of a dataset"),
        ({"hub": "/etc", "data": ""}, "hub must be the id of a dataset"),
        ({"hub": "https://host/rows", "data": ""}, "hub must be the id of a dataset"),
        ({"hub": "a/b/c", "data": ""}, "hub must be the id of a dataset"),
        ({"hub": "user/..", "data": ""}, "hub must be the id of a dataset"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": -5}, "max_new_tokens must be at least 1"),
        ({"splits": {"train": True}}, "a split must be a name or a share"),
        ({"splits": {"train": float("nan")}}, "a split must be a name or a share"),
        ({"splits": {"train": None}}, "a split must be a name or a share"),
        ({"settings": {1: 2}}, "cannot set 1"),
    ],
)
def test_a_value_that_no_task_can_have_is_refused(describe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        get_task(describe(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "/etc/passwd"}, "passwd"),
        ({"data": "../../../../../../etc/passwd"}, "passwd"),
        ({"data": "https://host/rows.jsonl"}, "rows.jsonl"),
        ({"data": "."}, "is a folder"),
        ({"prompt": "{missing}"}, "Row 1 of .* has no missing"),
        ({"prompt": "{nothing}"}, "Row 1 of .* has no nothing"),
        ({"prompt": "{nested}"}, "Row 1 of .* has a value in the column nested that is neither text nor a number"),
        ({"answer": "nested"}, "Row 1 of .* has a value in the column nested"),
        ({"choices": "a"}, "Row 1 of .* has no list of texts in the column a"),
        ({"choices": "nothing"}, "Row 1 of .* has no list of texts in the column nothing"),
    ],
)
def test_rows_that_do_not_fit_are_refused(describe, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = describe(**changes)
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"a": 1, "b": 2, "c": 3, "nothing": None, "nested": {"x": 1}}) + "\n"
    )
    with pytest.raises(ActshiftError, match=message):
        list(get_task(path).examples("train"))


@pytest.mark.parametrize("template", ["{a.__class__}", "{a:>1000000000}", "{a[0]}"])
def test_a_template_formats_no_column(describe, template: str) -> None:
    with pytest.raises(ActshiftError, match="cannot fill"):
        next(get_task(describe(prompt=template)).examples("train"))


@pytest.mark.parametrize("template", ["{{a}", "%(a)s", "${b}", "{}", "{see below}", "{x: y}"])
def test_a_template_replaces_only_columns(describe, template: str) -> None:
    example = next(get_task(describe(prompt=template)).examples("train"))
    assert example.prompt == template.replace("{a}", "0").replace("{b}", "1")


def test_splits_that_are_all_names_get_no_shares(describe) -> None:
    task = get_task(describe(hub="user/rows", data="", splits={"test": "dev"}))
    assert task.source.slices == {"test": SplitSlice("dev")}
