from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actshift import ActshiftError
from actshift.tasks import get_scorer
from actshift.training.rewards import Reward, custom_reward, get_rewards, right_answer, right_form

TEXTS = ["a", "bb"]
NUMBER, CHOICE = get_scorer("number"), get_scorer("choice")


def returning(values) -> Reward:
    return Reward("mine", lambda completions, **columns: values)


@pytest.mark.parametrize("values", [[1, 0.5], (True, None), np.array([1, 2]), torch.tensor([0.0, 1.0])])
def test_all_number_types_are_accepted(values):
    assert all(value is None or type(value) is float for value in returning(values)(completions=TEXTS))


@pytest.mark.parametrize(
    "values, message",
    [
        (None, "returned NoneType, not a list with one number per completion"),
        ([1.0], "returned 1 numbers for 2 completions"),
        ([1.0, "x"], "returned 'x', which is not a finite number"),
        ([1.0, "2"], "returned '2', which is not a finite number"),
        ([float("nan"), 1.0], "returned nan, which is not a finite number"),
        ([1.0, [2.0]], r"returned \[2.0\], which is not a finite number"),
    ],
)
def test_invalid_reward_values_raise(values, message):
    with pytest.raises(ActshiftError, match=f"The reward mine {message}"):
        returning(values)(completions=TEXTS)


def test_error_in_a_reward_names_the_error_and_the_step():
    def judge(completions, **columns):
        raise KeyError("solution")

    with pytest.raises(ActshiftError, match=r"mine raised KeyError \('solution'\) at step 5; fix it and .*--resume"):
        Reward("mine", judge)(completions=TEXTS, trainer_state=SimpleNamespace(global_step=4))


def test_get_rewards_by_name():
    assert [reward.__name__ for reward in get_rewards(["right_form", "right_answer"], get_scorer("number"))] == [
        "right_form",
        "right_answer",
    ]
    with pytest.raises(ActshiftError, match=r"no reward 'right_answr'.*did you mean 'right_answer'.*module:function"):
        get_rewards(["right_answr"], get_scorer("number"))


def test_right_answer_follows_the_scorer():
    completions = ["6 * 7 = 42\n#### 42", "#### 1,080", "It has 42 legs, so 4.", ""]
    answers = ["42", "1080", "42", "42"]
    assert right_answer(NUMBER)(completions=completions, answer=answers) == [1, 1, 0, 0]
    trees = [["oak", "pear"]] * 2
    assert right_answer(CHOICE)(completions=["(B)", "oak"], answer=["B", "B"], choices=trees) == [1, 0]


def test_arguments_that_are_not_columns_are_ignored():
    assert right_answer(NUMBER)(completions=["4"], answer=["4"], trainer_state=None, log_metric=print) == [1]


@pytest.mark.parametrize(
    "completion, formed",
    [
        ("6 * 7 = 42\n#### 42", True),
        ("#### 41", True),  # the value may be wrong
        ("#### $1,080.50 ", True),
        ("So it is 42.", False),
        ("####", False),
        ("#### none", False),
        ("#### 42\nQuestion: how many", False),
        ("", False),
    ],
)
def test_right_form_for_gsm8k(completion, formed):
    assert right_form(NUMBER)(completions=[completion], reference=["6 * 7 = 42\n#### 42"]) == [formed]


def test_right_form_without_a_mark_needs_only_an_answer():
    assert right_form(NUMBER)(completions=["So 7.", "no idea"], reference=[" 7", " 7"]) == [1, 0]
    assert right_form(NUMBER)(completions=["So 7."]) == [1]


def test_right_form_with_the_exact_scorer_raises():
    with pytest.raises(ActshiftError, match="right_form needs a scorer that extracts answers, such as number"):
        right_form(get_scorer("exact"))


MINE = """
THRESHOLD = 3

def brief(completions, **columns):
    return [float(len(text) < THRESHOLD) for text in completions]

def narrow(completions):
    return [0.0] * len(completions)

async def later(completions, **columns):
    return [0.0] * len(completions)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    return write


def test_custom_reward_from_the_working_directory(here):
    here("mine_a", MINE)
    reward = custom_reward("mine_a:brief")
    assert reward.name == "mine_a:brief" and reward(completions=["a", "abcd"], prompts=["", ""]) == [1.0, 0.0]


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere:f", "There is no module 'nowhere' for the reward, neither in .* nor installed"),
        ("mine_b:brif", "mine_b:brif: brif does not exist .did you mean 'brief'.. in mine_b"),
        ("mine_b:", "a function without a name"),
        ("mine_b:THRESHOLD", "THRESHOLD is not a function in mine_b"),
        ("mine_b:narrow", r"cannot be called as TRL calls it; define it as narrow\(completions, \*\*columns\)"),
        ("mine_b:later", "cannot be called as TRL calls it"),
        ("broken:f", r"The module 'broken' of the reward cannot be imported: ZeroDivisionError \(division by zero\)"),
        ("lacking:f", "'lacking' of the reward cannot be imported: ModuleNotFoundError .No module named 'absent'"),
    ],
)
def test_unusable_custom_rewards_raise(here, name, message):
    here("mine_b", MINE)
    here("broken", "1 / 0")
    here("lacking", "import absent")
    with pytest.raises(ActshiftError, match=message):
        custom_reward(name)
