"""Every task reads the layout of its dataset on the hub."""

from __future__ import annotations

from typing import Any

import pytest

from actshift.tasks import Task, get_task, task_names
from actshift.tasks.source import SPLITS
from tests.tasks.conftest import Serve
from tests.tasks.layouts import ANSWERS, COMMITS, HUB


@pytest.mark.parametrize("name", HUB)
def test_rows_of_the_hub_become_examples_that_score(name: str, serve: Serve) -> None:
    requests = serve(HUB[name])
    task = get_task(name)
    rows = [row for split in SPLITS for row in _all_of(task, split)]
    assert {(each["id"], each["config"]) for each in requests} == {COMMITS[name][:2]}
    assert all(each["revision"].startswith(COMMITS[name][2]) and len(each["revision"]) == 40 for each in requests)
    assert {each["split"] for each in requests} == {part.split for part in task.source.slices.values()}
    assert {row["answer"] for row in rows} == set(ANSWERS[name])
    for row in rows:
        assert row["prompt"] == row["prompt"].strip() and row["completion"][0] in " \n"
        assert task.scorer(row["completion"], row)


def _all_of(task: Task, split: str) -> list[dict[str, Any]]:
    """Return the rows of a split. `load` would raise if both rows of the mocked source are in other splits."""
    return [example.columns() for example in task.examples(split)]


@pytest.mark.parametrize("name", task_names())
def test_the_sample_row_of_a_task_has_the_layout_of_the_hub(name: str) -> None:
    task = get_task(name)
    example = task.example(task.sample)
    assert task.scorer(example.completion, {"answer": example.answer, "choices": list(example.choices)})
    if name in HUB:
        assert set(task.sample) <= set(HUB[name][0])


def test_prompts_and_completions_have_the_format_of_their_task(serve: Serve) -> None:
    first = {name: next(get_task(name).example(row) for row in HUB[name]) for name in HUB}
    assert first["gsm8k"].completion == " There are 2*12 = 24 eggs.\n#### 24"
    assert first["mawps"].prompt == "Question: Tom has 3 hats and buys 2 . How many hats now ?\nAnswer:"
    assert first["aqua_rat"].completion == " 2 + 3 = 5.\nAnswer is B\nAnswer: B"
    assert first["aqua_rat"].prompt == "Question: What is 2 + 3?\nA. 4\nB. 5\nC. 6\nD. 7\nE. 8\nSolution:"
    assert first["alpaca"].prompt == "### Instruction:\nName a colour.\n\n### Response:"
    assert first["boolq"].prompt.endswith("It is cold.\nQuestion: is ice cold?\nAnswer (yes or no):")


def test_an_instruction_without_an_answer_is_skipped(serve: Serve) -> None:
    serve([*HUB["alpaca"], {"instruction": "Say nothing.", "input": "", "output": "", "text": ""}])
    examples = [example for split in SPLITS for example in get_task("alpaca").examples(split)]
    assert len(examples) == 2
