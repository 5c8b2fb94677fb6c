"""Every task, read from the layout that its dataset has on the hub."""

from __future__ import annotations

import pytest

from actshift.tasks import get_task, task_names
from actshift.tasks.source import SPLITS
from tests.tasks.layouts import ANSWERS, COMMITS, HUB


@pytest.mark.parametrize("name", HUB)
def test_rows_of_the_hub(name: str, serve) -> None:
    asked = serve(HUB[name])
    task = get_task(name)
    rows = [row for split in SPLITS for row in _all_of(task, split)]
    assert {(each["id"], each["config"]) for each in asked} == {COMMITS[name][:2]}
    assert all(each["revision"].startswith(COMMITS[name][2]) and len(each["revision"]) == 40 for each in asked)
    assert {each["split"] for each in asked} == {part.split for part in task.source.parts.values()}
    assert {row["answer"] for row in rows} == set(ANSWERS[name])
    for row in rows:
        assert row["prompt"] == row["prompt"].strip() and row["completion"][0] in " \n"
        assert task.scorer(row["completion"], row)


def _all_of(task, split: str) -> list[dict]:
    """The rows of a split, none where two rows of a mocked source all fall elsewhere."""
    from actshift.tasks.source import text_row

    return [text_row(example) for example in task.examples(split)]


@pytest.mark.parametrize("name", task_names())
def test_the_made_up_row_of_a_task_is_in_that_layout(name: str) -> None:
    task = get_task(name)
    example = task.example(task.sample)
    assert task.scorer(example.completion, {"answer": example.answer, "choices": list(example.choices)})
    if name in HUB:
        assert set(task.sample) <= set(HUB[name][0])


def test_how_rows_read(serve) -> None:
    first = {name: next(get_task(name).example(row) for row in HUB[name]) for name in HUB}
    assert first["gsm8k"].completion == " There are 2*12 = 24 eggs.\n#### 24"
    assert first["mawps"].prompt == "Question: Tom has 3 hats and buys 2 . How many hats now ?\nAnswer:"
    assert first["aqua_rat"].completion == " 2 + 3 = 5.\nAnswer is B\nAnswer: B"
    assert first["aqua_rat"].prompt == "Question: What is 2 + 3?\nA. 4\nB. 5\nC. 6\nD. 7\nE. 8\nSolution:"
    assert first["alpaca"].prompt == "### Instruction:\nName a colour.\n\n### Response:"
    assert first["boolq"].prompt.endswith("It is cold.\nQuestion: is ice cold?\nAnswer (yes or no):")


def test_an_instruction_without_an_answer_is_left_out(serve) -> None:
    serve([*HUB["alpaca"], {"instruction": "Say nothing.", "input": "", "output": "", "text": ""}])
    examples = [example for split in SPLITS for example in get_task("alpaca").examples(split)]
    assert len(examples) == 2
