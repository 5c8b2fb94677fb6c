from __future__ import annotations

import pytest

from actshift import ActshiftError
from actshift.tasks import get_scorer
from actshift.training.rewards import right_answer, right_form

NUMBER, CHOICE = get_scorer("number"), get_scorer("choice")


def test_a_right_answer_is_what_the_scorer_of_the_task_finds_right():
    completions = ["6 * 7 = 42\n#### 42", "#### 1,080", "It has 42 legs, so 4.", ""]
    answers = ["42", "1080", "42", "42"]
    assert right_answer(NUMBER)(completions=completions, answer=answers) == [1, 1, 0, 0]
    trees = [["oak", "pear"]] * 2
    assert right_answer(CHOICE)(completions=["(B)", "oak"], answer=["B", "B"], choices=trees) == [1, 0]


def test_what_is_no_list_of_one_a_row_is_no_column():
    assert right_answer(NUMBER)(completions=["4"], answer=["4"], trainer_state=None, log_metric=print) == [1]


@pytest.mark.parametrize(
    "completion, formed",
    [
        ("6 * 7 = 42\n#### 42", True),
        ("#### 41", True),  # the form says nothing of the value
        ("#### $1,080.50 ", True),
        ("So it is 42.", False),
        ("####", False),
        ("#### none", False),
        ("#### 42\nQuestion: how many", False),
        ("", False),
    ],
)
def test_the_form_of_gsm8k(completion, formed):
    assert right_form(NUMBER)(completions=[completion], reference=["6 * 7 = 42\n#### 42"]) == [formed]


def test_where_no_mark_is_used_an_answer_is_enough():
    assert right_form(NUMBER)(completions=["So 7.", "no idea"], reference=[" 7", " 7"]) == [1, 0]
    assert right_form(NUMBER)(completions=["So 7."]) == [1]


def test_a_scorer_that_takes_any_text_has_no_form():
    with pytest.raises(ActshiftError, match="right_form needs a scorer that extracts answers, such as number"):
        right_form(get_scorer("exact"))
