"""The demo task is deterministic, its splits share nothing, and pretraining never showed its form."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from demo_corpus import build_tokenizer, documents
from hypothesis import given
from hypothesis import strategies as st

from actshift.demo.task import (
    LARGEST_VALUE,
    NUMBERS_FR,
    OPERATIONS,
    Expression,
    Split,
    format_completion,
    format_prompt,
    make_rows,
    random_expression,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_the_same_for_the_same_seed(split: Split) -> None:
    assert make_rows(split, 50, seed=3) == make_rows(split, 50, seed=3)
    assert make_rows(split, 50, seed=3) != make_rows(split, 50, seed=4)


def test_rows_are_distinct_and_splits_share_none() -> None:
    prompts = {split: {row["prompt"] for row in make_rows(split, 2000)} for split in SPLITS}
    assert all(len(texts) == 2000 for texts in prompts.values())
    assert len(set.union(*prompts.values())) == 6000


def test_answer_is_the_value_in_french() -> None:
    inner = Expression(OPERATIONS["smallest"], (9, 4))
    expression = Expression(OPERATIONS["sum"], (3, inner))
    assert format_prompt(expression) == "what is the sum of three and ( the smallest of nine and four ) ? réponse :"
    assert format_completion(expression) == " sept est la réponse ."


def test_no_constant_answer_is_right_in_15_percent() -> None:
    completions = [row["completion"] for row in make_rows("test", 2000)]
    assert max(completions.count(c) for c in set(completions)) < 0.15 * len(completions)


def test_prompt_and_completion_tokenize_as_one_text() -> None:
    tokenizer = build_tokenizer()
    for row in make_rows("train", 200):
        joined = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        assert tokenizer(row["prompt"])["input_ids"] + tokenizer(row["completion"])["input_ids"] == joined
        assert tokenizer.unk_token_id not in joined
        assert tokenizer.decode(joined) == row["prompt"] + row["completion"]


def test_corpus_contains_nothing_in_the_form_of_the_task() -> None:
    for document in islice(documents(seed=1), 20_000):
        assert not (document.text.startswith("what is") and "réponse" in document.text)
        assert not any(f"{number} est la réponse" in document.text for number in NUMBERS_FR)


@given(seed=st.integers(0, 2**32), depth=st.integers(1, 3))
def test_expressions_have_the_depth_asked_for_and_a_value_that_has_a_name(seed: int, depth: int) -> None:
    expression = random_expression(random.Random(seed), depth)
    assert expression.depth == depth
    assert 0 <= expression.value <= LARGEST_VALUE
