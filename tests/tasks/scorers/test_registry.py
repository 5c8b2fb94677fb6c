"""Scorers by name, the columns that they need, and the exact scorer."""

from __future__ import annotations

import pickle
import time

import pytest

from actshift.errors import ActshiftError
from actshift.tasks.scorers import SCORERS, get_scorer


def test_every_scorer_of_the_package_is_registered_by_its_name() -> None:
    assert sorted(SCORERS) == ["boolean", "choice", "exact", "label", "number"]
    assert all(get_scorer(name).name == name for name in SCORERS)


def test_an_unknown_name_raises_and_suggests_the_nearest() -> None:
    with pytest.raises(ActshiftError, match=r"no scorer 'numbers' \(did you mean 'number'\?\); the scorers are exact,"):
        get_scorer("numbers")


@pytest.mark.parametrize("name", SCORERS)
def test_a_row_without_a_gold_answer_raises(name: str) -> None:
    with pytest.raises(ActshiftError, match="needs the column answer or completion, and has prompt, choices"):
        get_scorer(name)("A", {"prompt": "?", "choices": ["A", "B"]})


@pytest.mark.parametrize("name", sorted(SCORERS.keys() - {"number"}))
def test_a_scorer_can_be_pickled_for_another_process(name: str) -> None:
    assert pickle.loads(pickle.dumps(get_scorer(name)))("yes", {"answer": "yes", "choices": ["no", "yes"]}) is True


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("text", ["1 ", "- ", "the answer is ", "= ", "A, ", "not the ", "(", "1,", "yes or "])
def test_a_long_text_is_scored_quickly(name: str, text: str) -> None:
    row = {"answer": {"boolean": "yes", "number": "42"}.get(name, "A"), "choices": ["A", "1, 1", "no or yes"]}
    start = time.process_time()
    get_scorer(name)(text * 1_000, row)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("prediction", "row", "right"),
    [
        (" 42\n", {"answer": "42"}, True),
        ("42", {"completion": " 42\n"}, True),
        ("42", {"answer": "42", "completion": " so it is 42"}, True),
        ("so it is 42", {"answer": "42", "completion": " so it is 42"}, False),
        ("42.0", {"answer": "42"}, False),
        ("Yes", {"answer": "yes"}, False),
        ("a  b", {"answer": "a b"}, False),
        ("", {"answer": ""}, True),
        ("", {"answer": "42"}, False),
        ("142", {"answer": "42"}, False),
    ],
)
def test_the_exact_scorer_compares_the_whole_completion(prediction: str, row: dict[str, str], right: bool) -> None:
    exact = get_scorer("exact")
    assert exact(prediction, row) is right
    assert exact.extract(prediction, row) == prediction.strip()


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("text", ["yes A ", "the answer is the ", "\n", "A or ", "1+", "#### = ", "not  ", "\\boxed{"])
def test_a_text_of_20_000_characters_takes_less_than_a_second(name: str, text: str) -> None:
    row = {"answer": {"boolean": "yes", "number": "42"}.get(name, "A"), "choices": ["A", "1, 1", "no or yes"]}
    start = time.process_time()
    get_scorer(name)(text * (20_000 // len(text)), row)
    assert time.process_time() - start < 1


LONG = "9" * 5000


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("text", [LONG, f"1/{LONG}", f"1 {LONG}/{LONG}", f"0.{LONG}", f"{LONG} trillion", "1e999999999",
                                  "1.5/2", "3 0.5/2", "١٢٣", "٣/٤", "\ud800", "\x00", "∞", "nan", "²/³"])  # fmt: skip
def test_no_number_raises(name: str, text: str) -> None:
    row = {"answer": {"boolean": "yes", "number": "5"}.get(name, "A"), "choices": ["A", "B"]}
    assert get_scorer(name)(f"The answer is {text}", row) is False


def test_numbers_of_5000_digits_are_compared() -> None:
    number = get_scorer("number")
    assert number(f"So {LONG}.", {"answer": LONG}) is True
    assert number(f"So {LONG}.", {"answer": LONG[1:]}) is False
    assert number("So 12345678901234567890123456789012 million", {"answer": "12345678901234567890123456789012000000"})
