"""The scorer number on difficult strings, and properties of all numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.tasks.scorers import get_scorer

number = get_scorer("number")


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("42", "42"),
        (" 42\n", "42"),
        ("42.", "42"),
        ("42!", "42"),
        ("42.0", "42"),
        ("42", "42.0"),
        ("5.", "5"),
        (".5", "0.5"),
        ("0.50", ".5"),
        ("1,234", "1234"),
        ("1234", "1,234"),
        ("1,234,567.80.", "1234567.8"),
        ("10{,}000 is 10,000", "10000"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("+5", "5"),
        ("-0", "0"),
        ("$18", "18"),
        ("€18.50", "18.5"),
        ("Rs.336", "336"),
        ("18 dollars", "18"),
        ("18€", "18"),
        ("18%", "18"),
        ("50 %", "50"),
        ("18kg", "18"),
        ("60 km/h", "60"),
        ("60km/h", "60"),
        ("$18/hour", "18"),
        ("12 m²", "12"),
        ("She has 42 apples left over.", "42"),
        ("She had 50 and gave 8 away, so 42 remain.", "42"),
        ("50 - 8 = 42", "42"),
        ("50-8=42", "42"),
        ("48/2 = <<48/2=24>>24 clips", "24"),
        ("6 * 7 = $42.", "42"),
        ("x = -3", "-3"),
        ("**42**", "42"),
        ("The answer is **$42**.", "42"),
        (r"\boxed{42}", "42"),
        (r"$42$", "42"),
        (r"\$42.50", "42.5"),
        (r"So \(x = 42\).", "42"),
        ("He works.\n#### 42", "42"),
        ("#### $1,080", "1080"),
        ("####42 and then he has 7 more", "42"),
        ("The answer is 42. I took 3 steps.", "42"),
        ("The answer is 42, because there are 3 of them.", "42"),
        ("The answer to question 3 is 42, in 2 steps.", "42"),
        ("Answer: 42 (that is 2 more than 40)", "42"),
        ("The final answer is: 42 apples, from 6 trees", "42"),
        ("The answer is 6 * 7 = 42 after 2 steps", "42"),
        ("The answer is x = 42 in step 2", "42"),
        ("The answer is 41. No, wait: the answer is 42. That took 2 tries.", "42"),
        ("It is 42, not 41", "42"),
        ("42 on the 3rd day", "42"),
        ("1.83333", "1.8333333333333335"),
        ("0005", "5"),
        ("042", "42"),
        ("5", "0005"),
        ("007.50", "7.5"),
        ("1.8333", "1.833333"),
        ("1.83333333333333333333", "1.8333333333333335"),
        ("1.8333333333", "1.833333"),
        ("11/6", "1.8333333333333335"),
        ("1 5/6", "1.833333"),
        (r"\frac{5}{6}", "0.833333"),
        (r"-\frac{5}{6}", "-0.833333"),
        ("3/4", "0.75"),
        ("1 1/2 cups", "1.5"),
        ("-1 1/2", "-1.5"),
        ("0.75", "3/4"),
        ("6/8", "3/4"),
        ("2.5 million", "2500000"),
        ("42 thousand people", "42,000"),
    ],
)
def test_a_prediction_with_the_gold_number_is_right(prediction: str, answer: str) -> None:
    assert number(prediction, {"answer": answer})


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("", "42"),
        ("   ", "0"),
        ("none", "0"),
        ("forty-two", "42"),
        ("142", "42"),
        ("421", "42"),
        ("4.2", "42"),
        ("4,2", "42"),
        ("0.42", "42"),
        ("42.5", "42"),
        ("-42", "42"),
        ("42", "-42"),
        ("–42", "42"),
        ("- 42", "42"),
        ("- 42", "-42"),
        ("42nd", "42"),
        ("x42", "42"),
        ("COVID-42", "42"),
        ("42abc", "42"),
        ("$42k", "42"),
        ("1,23", "123"),
        ("1,23", "23"),
        ("12,34,567", "1234567"),
        ("1,2345", "12345"),
        ("1 000", "0"),
        ("10{,}000", "0"),
        ("1.2.42", "42"),
        ("3:42", "42"),
        ("7/42", "42"),
        ("84/2", "42"),
        ("84 / 2", "42"),
        ("6*7", "7"),
        ("6 * 7", "6"),
        ("40 + 2", "2"),
        ("44 - 2", "44"),
        ("2-42", "42"),
        ("41-42", "42"),
        ("41–42", "42"),
        ("41 or 42", "42"),
        ("42 or 41", "42"),
        ("from 41 to 42", "42"),
        ("41 and 42", "42"),
        ("The answer is 42 or 43.", "42"),
        ("The answer is 41, 42, 43", "41"),
        ("The answer is 41. 42 was my first guess.", "42"),
        ("#### 41\nor rather 42", "42"),
        ("It is not 42", "42"),
        ("It isn't 42.", "42"),
        ("42 = 6 * 8", "42"),
        ("42 of them are red and 7 are blue", "42"),
        ("42 million", "42"),
        ("50%", "0.5"),
        (r"\frac{1}{2}", "2"),
        (r"\frac{1}{42}", "42"),
        ("1 1/2", "0.5"),
        ("-1 1/2", "0.5"),
        ("1/2", "2"),
        ("1½", "1"),
        ("2^42", "42"),
        ("1e3", "1"),
        ("1.83", "1.8333333333333335"),
        ("1.833", "1.833333"),
        ("1.8334", "1.833333"),
        ("1.83334", "1.8333333333333335"),
        ("0.6666", "0.6666666666666666"),
        ("0.67", "0.666667"),
        ("2", "1.999999"),
        ("0.3334", "0.3333"),
        ("0.33333", "0.3333"),
        ("42.000001", "42"),
        ("0.0000", "0.00001"),
    ],
)
def test_a_prediction_with_another_final_number_is_wrong(prediction: str, answer: str) -> None:
    assert not number(prediction, {"answer": answer})


@pytest.mark.parametrize(
    ("prediction", "extracted"),
    [
        ("so $1,080.50.", "1080.5"),
        ("-.5", "-0.5"),
        ("6/8", "6/8"),
        ("41 or 42", None),
        ("", None),
        ("3 million", "3000000"),
    ],
)
def test_extract_returns_the_canonical_form(prediction: str, extracted: str | None) -> None:
    assert number.extract(prediction, {}) == extracted


def test_the_completion_replaces_a_missing_answer() -> None:
    assert number("It is 42.", {"completion": " 20 + 22 = 42\n#### 42"})


def test_a_gold_answer_that_is_not_a_number_raises() -> None:
    with pytest.raises(ActshiftError, match="needs an answer that is a number, got 'B'"):
        number("42", {"answer": "B"})


numbers = st.one_of(
    st.integers(-(10**30), 10**30).map(Decimal),
    st.decimals(min_value=-(10**9), max_value=10**9, places=3, allow_nan=False, allow_infinity=False),
)
templates = st.sampled_from(
    [
        "{}",
        "{:,}",
        "${:,}",
        "{:,} apples",
        "It is {}.",
        "#### {:,}",
        "After 3 days, the answer is {:,}; not 7.",
        "**{}**",
        "={}",
    ]
)


@given(value=numbers, template=templates)
def test_a_formatted_number_equals_itself(value: Decimal, template: str) -> None:
    assert number(template.format(value), {"answer": str(value)})


@given(value=numbers, digits=st.text("0123456789", min_size=1, max_size=4), template=templates)
def test_more_digits_never_score(value: Decimal, digits: str, template: str) -> None:
    sign, plain = ("-" if value < 0 else ""), str(abs(value))
    for changed in (plain + digits, digits + plain):
        if Decimal(changed) != Decimal(plain):
            assert not number(template.replace("{:,}", "{}").format(sign + changed), {"answer": str(value)})


@given(a=numbers, b=numbers)
def test_two_numbers_score_only_if_they_are_equal(a: Decimal, b: Decimal) -> None:
    assert number(str(a), {"answer": str(b)}) == (a == b)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    number(text, {"answer": "42"})
