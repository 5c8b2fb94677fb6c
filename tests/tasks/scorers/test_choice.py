"""The scorer choice on difficult strings: answers by letter, by number and by text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer

choice = get_scorer("choice")

PETS = ["a dog", "a cat", "a goldfish", "a dog and a cat"]
SUMS = ["42", "142", "4.2", "1,042", "42%"]
PEOPLE = ["Sarah", "Maria"]


@pytest.mark.parametrize(
    ("prediction", "answer", "choices"),
    [
        ("A", "A", PETS),
        (" b\n", "B", PETS),
        ("b.", "B", PETS),
        ("(a)", "A", PETS),
        ("(B)", "B", PETS),
        ("B)", "B", PETS),
        ("[B]", "B", PETS),
        ("B:", "B", PETS),
        ("**B**", "B", PETS),
        ("**B.** It purrs.", "B", PETS),
        ("B. a cat", "B", PETS),
        ("B) a cat.", "B", PETS),
        ("B - a cat", "B", PETS),
        ("B because it purrs", "B", PETS),
        ("B\nIt purrs.", "B", PETS),
        ("A is right", "A", PETS),
        ("Option C", "C", PETS),
        ("Answer: C", "C", PETS),
        ("Answer:C", "C", PETS),
        ("answer is c.", "C", PETS),
        ("The answer is (C) because fish swim and a dog barks.", "C", PETS),
        ("The answer is C, not A.", "C", PETS),
        ("The correct option is C.", "C", PETS),
        ("It could be A or B, but the answer is C.", "C", PETS),
        ("First I thought the answer is A. No: the answer is B.", "B", PETS),
        ("I think it is B because it purrs.", "B", PETS),
        ("I would go with B.", "B", PETS),
        ("Therefore, B.", "B", PETS),
        ("It is not A but B.", "B", PETS),
        (r"\boxed{B}", "B", PETS),
        (r"The answer is $\boxed{\text{B}}$.", "B", PETS),
        ("#### B", "B", PETS),
        ("a cat", "B", PETS),
        ("A cat.", "B", PETS),
        ("It must be a cat, I suppose", "B", PETS),
        ("a dog and a cat", "D", PETS),
        ("A Dog and a Cat.", "D", PETS),
        ("The answer is a dog and a cat", "D", PETS),
        ("B", "a cat", PETS),
        ("a cat", "a cat", PETS),
        ("42", "A", SUMS),
        ("142", "B", SUMS),
        ("4.2.", "C", SUMS),
        ("1,042", "D", SUMS),
        ("42%", "E", SUMS),
        ("40 + 2 = 42", "A", SUMS),
        ("(A) 42", "A", SUMS),
        ("40 + 102 = 142, not 42\nAnswer: B", "B", SUMS),
        ("1", "1", PEOPLE),
        ("2.", "2", PEOPLE),
        ("(2)", "2", PEOPLE),
        ("Option 2", "2", PEOPLE),
        ("2) Maria", "2", PEOPLE),
        ("Maria", "2", PEOPLE),
        ("It is Maria who got them.", "2", PEOPLE),
        ("Not Sarah but Maria", "2", PEOPLE),
        ("The answer is 2, because Sarah was better.", "2", PEOPLE),
        ("2", "2", ["3", "4"]),
        ("4", "2", ["3", "4"]),
        ("B", "B", []),
        ("The answer is (E).", "E", []),
        ("2", "2", []),
        ("A", "A", ["B", "A"]),
        ("Vitamin C", "B", ["Vitamin A", "Vitamin C", "Iron"]),
        ("US", "A", ["US", "us"]),
        ("D) kmph", "D", ["km", "mph", "m", "kmph", "kmph"]),
        ("15", "A", ["15", "-15", "+15"]),
        ("-15.", "B", ["15", "-15", "+15"]),
    ],
)
def test_a_prediction_with_the_gold_choice_is_right(prediction: str, answer: str, choices: list[str]) -> None:
    assert choice(prediction, {"answer": answer, "choices": choices})


@pytest.mark.parametrize(
    ("prediction", "answer", "choices"),
    [
        ("", "A", PETS),
        ("  \n", "A", PETS),
        ("B", "A", PETS),
        ("E", "A", PETS),
        ("AB", "A", PETS),
        ("Apple", "A", PETS),
        ("cat", "C", PETS),
        ("A whale", "A", PETS),
        ("A big animal that barks", "A", PETS),
        ("It is a whale", "A", PETS),
        ("The answer is a whale.", "A", PETS),
        ("The answer is A whale.", "A", PETS),
        ("It has a tail", "A", PETS),
        ("Vitamin C helps", "C", PETS),
        ("Plan B", "B", PETS),
        ("e.g. d.h.", "D", PETS),
        ("U.S.A.", "A", PETS),
        ("he'd say", "D", PETS),
        ("A or B", "A", PETS),
        ("A or B", "B", PETS),
        ("(A) or (B)", "A", PETS),
        ("A, B and C", "A", PETS),
        ("Either A or B.", "B", PETS),
        ("Both A and B are right", "A", PETS),
        ("A. Or rather B.", "A", PETS),
        ("The answer is A or B.", "A", PETS),
        ("The answer is (A), (B)", "A", PETS),
        ("The answer is not B.", "B", PETS),
        ("It is not B.", "B", PETS),
        ("It isn't (B)", "B", PETS),
        ("B) a dog", "B", PETS),
        ("B) a dog", "A", PETS),
        ("a goldfish or a cat", "B", PETS),
        ("a dogma", "A", PETS),
        ("a cat-like animal", "B", PETS),
        ("cat", "B", PETS),
        ("2", "B", PETS),
        ("a dog and a cat", "A", PETS),
        ("142", "A", SUMS),
        ("4.2", "A", SUMS),
        ("42nd", "A", SUMS),
        ("-42", "A", SUMS),
        (".42", "A", SUMS),
        ("42 %", "A", SUMS),
        ("42/7", "A", SUMS),
        ("42 or 142", "A", SUMS),
        ("42,142", "B", SUMS),
        ("12", "2", PEOPLE),
        ("2.5", "2", PEOPLE),
        ("-2", "2", PEOPLE),
        ("There are 2 people", "2", PEOPLE),
        ("1 or 2", "2", PEOPLE),
        ("1. Maria", "2", PEOPLE),
        ("B", "2", PEOPLE),
        ("Mariana", "2", PEOPLE),
        ("Sarah and Maria", "2", PEOPLE),
        ("4/5", "C", ["1/2", "2/3", "4/5", "6/11", "4/5"]),  # two choices have the same text
    ],
)
def test_a_prediction_with_another_choice_is_wrong(prediction: str, answer: str, choices: list[str]) -> None:
    assert not choice(prediction, {"answer": answer, "choices": choices})


def test_extract_returns_the_key_of_the_choice() -> None:
    assert choice.extract("It is a cat.", {"answer": "A", "choices": PETS}) == "B"
    assert choice.extract("Sarah", {"answer": "2", "choices": PEOPLE}) == "1"
    assert choice.extract("A or B", {"answer": "A", "choices": PETS}) is None


@pytest.mark.parametrize("answer", ["E", "5", "0", "a whale", ""])
def test_a_gold_answer_that_is_not_a_choice_raises(answer: str) -> None:
    with pytest.raises(ActshiftError, match=f"needs an answer that is one of A, B, C, D.*got '{answer}'"):
        choice("A", {"answer": answer, "choices": PETS})


def test_a_gold_number_that_is_also_the_text_of_another_choice_raises() -> None:
    with pytest.raises(ActshiftError, match="'2' is the number of one choice and the text of another; use letters"):
        choice("2", {"answer": "2", "choices": ["2", "4"]})


texts = st.lists(st.text(st.characters(exclude_categories=["C"]), max_size=12), min_size=2, max_size=6)


@given(
    choices=texts, data=st.data(), template=st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "The answer is {}."])
)
def test_only_the_gold_letter_scores(choices: list[str], data: st.DataObject, template: str) -> None:
    letters = "ABCDEF"[: len(choices)]
    answer = data.draw(st.sampled_from(letters))
    row = {"answer": answer, "choices": choices}
    assert [letter for letter in letters if choice(template.format(letter), row)] == [answer]


def test_labels_that_are_numbers_are_compared_as_text() -> None:
    assert get_scorer("label")(" 2", {"answer": "2", "choices": [1, 2]})
    assert not get_scorer("label")(" 1", {"answer": "2", "choices": [1, 2]})
