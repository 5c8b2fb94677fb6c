"""Tasks by name: the forms of their rows, splits, local files and error messages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from actshift.errors import ActshiftError
from actshift.tasks import get_task, task_names
from tests.tasks.layouts import HUB


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def test_every_task_of_the_paper_is_registered() -> None:
    assert task_names() == tuple("""alpaca aqua_rat arc_challenge arc_easy asdiv boolq gsm8k listops mawps mnli
        openbookqa social_iqa sst2 svamp winogrande""".split())  # fmt: skip


def test_an_unknown_name_raises_and_suggests_the_nearest() -> None:
    with pytest.raises(ActshiftError, match=r"no task 'gsmk8' \(did you mean 'gsm8k'\?\)"):
        get_task("gsmk8")


def test_each_form_has_its_columns(serve) -> None:
    serve(HUB["mnli"])
    task = get_task("mnli")
    prompt = "Premise: It rains.\nHypothesis: It is wet outside.\nRelation (entailment, neutral or contradiction):"
    gold = {"answer": "entailment", "choices": ["entailment", "neutral", "contradiction"]}
    assert task.load("train")[0] == {"prompt": prompt, "completion": " entailment", **gold}
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "entailment"}]
    assert task.load("train", form="messages")[0] == {"messages": turns, **gold}
    assert task.load("train", form="labels")[0] == {
        "text": "It rains.", "text_pair": "It is wet outside.", "label": "entailment",
    }  # fmt: skip


def test_the_limit_counts_rows_of_the_split_and_not_of_its_source(serve) -> None:
    serve([{"question": f"{number}?", "answer": f"#### {number}"} for number in range(40)])
    task = get_task("gsm8k")
    whole = task.load("validation")
    assert 10 < len(whole) < 30
    assert task.load("validation", limit=10)["prompt"] == whole["prompt"][:10]
    assert {*whole["prompt"]}.isdisjoint(task.load("test")["prompt"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "Unknown split 'dev'. Use one of train, validation, test"),
        ({"split": "tests"}, "did you mean 'test'"),
        ({"split": "test", "form": "label"}, "did you mean 'labels'"),
        ({"split": "test", "form": "labels"}, "gsm8k has no labels to classify by; use the form text or messages"),
    ],
)
def test_an_unknown_split_or_form_raises(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        get_task("gsm8k").load(**arguments)


def test_files_are_read_compressed_or_not(tmp_path: Path) -> None:
    row = {"prompt_fields": {"sentence": "so so"}, "answer": 1}
    write(tmp_path / "sst2", "dev.jsonl", [row])
    assert get_task("sst2").load("test", tmp_path)["answer"] == ["positive"]
    write(tmp_path / "sst2", "dev.jsonl.gz", [row, row])
    assert len(get_task("sst2").load("test", tmp_path)) == 2  # the compressed file is preferred


def test_a_folder_without_the_split_raises(tmp_path: Path) -> None:
    task = get_task("arc_easy")
    with pytest.raises(ActshiftError, match=r"reads test.jsonl.gz \(or .jsonl\) in .*arc_easy, and there is no such"):
        task.load("test", tmp_path)
    write(tmp_path / "arc_easy", "train.jsonl.gz", [])
    with pytest.raises(ActshiftError, match=r"reads test.jsonl.gz .* in .*arc_easy, which has train.jsonl.gz\."):
        task.load("test", tmp_path)
    with pytest.raises(ActshiftError, match="no rows in its split train"):
        task.load("train", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence": "so so", "label": 1}, "Row 2 of .*dev.jsonl has the columns sentence, label; it needs prompt_fi"),
        ({"prompt_fields": {"text": "so so"}, "answer": 1}, r"Row 2 of .*dev.jsonl has no sentence\."),
        ({"prompt_fields": {"sentence": "so so"}, "answer": 2},
         r"Row 2 of .*dev.jsonl has the label 2; it must be one of negative, positive\."),
        ({"prompt_fields": {"sentence": "so so"}, "answer": "neutral"}, "label 'neutral'; it must be one of negative"),
        ({"prompt_fields": {"sentence": "so so"}, "answer": -1}, "has the label -1"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_raises_with_its_number(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write(tmp_path / "sst2", "dev.jsonl", [{"prompt_fields": {"sentence": "fine"}, "answer": 1}, row])
    with pytest.raises(ActshiftError, match=message):
        get_task("sst2").load("test", tmp_path)


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach 'x' on the Hub\nmore"), ValueError("no config x")])
def test_a_failed_download_raises_one_line_that_suggests_files(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ActshiftError) as caught:
        get_task("gsm8k").load("test")
    message = str(caught.value)
    assert message.startswith("The task gsm8k could not be loaded from openai/gsm8k (main) at 740312ad")
    assert ", split test on the hub (" in message and "\n" not in message
    assert message.endswith("; with --data-dir DIR it is read from DIR/gsm8k.")
