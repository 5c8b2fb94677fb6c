from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actshift import ActshiftError
from actshift.tasks import get_scorer
from actshift.training.rewards import Reward, get_rewards

TEXTS = ["a", "bb"]


def returning(values) -> Reward:
    return Reward("mine", lambda completions, **columns: values)


@pytest.mark.parametrize("values", [[1, 0.5], (True, None), np.array([1, 2]), torch.tensor([0.0, 1.0])])
def test_numbers_of_any_kind_are_rewards(values):
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
def test_anything_else_is_one_line(values, message):
    with pytest.raises(ActshiftError, match=f"The reward mine {message}"):
        returning(values)(completions=TEXTS)


def test_a_reward_that_raises_is_named_with_its_error_and_the_step():
    def judge(completions, **columns):
        raise KeyError("solution")

    with pytest.raises(ActshiftError, match=r"mine raised KeyError \('solution'\) at step 5; fix it and .*--resume"):
        Reward("mine", judge)(completions=TEXTS, trainer_state=SimpleNamespace(global_step=4))


def test_rewards_by_name_and_what_is_wrong_with_a_name():
    assert [one.__name__ for one in get_rewards(["right_form", "right_answer"], get_scorer("number"))] == [
        "right_form",
        "right_answer",
    ]
    with pytest.raises(ActshiftError, match=r"no reward 'right_answr'.*did you mean 'right_answer'.*module:function"):
        get_rewards(["right_answr"], get_scorer("number"))
