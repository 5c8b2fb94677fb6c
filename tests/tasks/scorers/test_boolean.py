"""The scorer boolean on difficult strings."""

from __future__ import annotations

import pytest

from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer

boolean = get_scorer("boolean")

YES = [
    "yes",
    "Yes.",
    " YES!\n",
    "True",
    "true.",
    "**Yes**",
    "'yes'",
    "Yes, because owls hunt at night.",
    "Yes, because no one saw it and nothing was known.",
    "Yes - no other city has one",
    "Yes, it is true.",
    "I would say yes",
    "The statement is true, I know.",
    "It is not false but true",
    "It certainly seems to be true that they do.",
    "The answer is yes.",
    "Answer: yes",
    "Answer (yes or no): yes",
    "Some say no. The answer is yes.",
    "Yes or no? The answer is: yes, though some say no.",
    "#### yes",
    r"\boxed{\text{yes}}",
    "The answer is no. Wait, the answer is yes.",
    "Yes\nQuestion",
    "Yes: there is",
]
NO = [
    "no",
    "No.",
    "NO\n",
    "False",
    "false!",
    "No, because they do not.",
    "No, it is not true.",
    "No it is not",
    "no, nobody does",
    "The claim is false.",
    "The answer is no.",
    "Answer: False",
    "Yes would be wrong; the answer is no",
    "Not true but false",
    "#### No",
]
NEITHER = [
    "",
    " ",
    "maybe",
    "I do not know",
    "nothing",
    "None",
    "know",
    "yesterday",
    "untrue",
    "truth",
    "No one knows",
    "There is no way to tell",
    "a no-brainer",
    "a yes-man",
    "yes and no",
    "yes or no",
    "yes/no",
    "Yes. No.",
    "Yes, that is false",
    "True or false",
    "The answer is yes or no.",
    "not true",
    "It isn't false",
    "n",
    "1",
]


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [*((text, "yes") for text in YES), *((text, "no") for text in NO), *((text, None) for text in NEITHER)],
)
def test_the_answer_is_yes_no_or_neither(prediction: str, answer: str | None) -> None:
    assert boolean.extract(prediction, {}) == answer
    assert [gold for gold in ("yes", "no") if boolean(prediction, {"answer": gold})] == ([answer] if answer else [])


@pytest.mark.parametrize("gold", ["yes", "true", "True", True])
def test_a_gold_answer_may_be_yes_or_true(gold: object) -> None:
    assert boolean("Yes", {"answer": gold})
    assert not boolean("No", {"answer": gold})


def test_the_completion_replaces_a_missing_answer() -> None:
    assert boolean("No.", {"completion": " no"})


def test_a_gold_answer_that_is_neither_raises() -> None:
    with pytest.raises(ActshiftError, match="an answer of yes, no, true or false, got 'maybe'"):
        boolean("yes", {"answer": "maybe"})
