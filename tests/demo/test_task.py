"""The demo task: deterministic, splits that share nothing, a form the base was never shown."""

from __future__ import annotations

from itertools import islice

import pytest

from actshift.demo.corpus import NUMBERS_FR, documents
from actshift.demo.expressions import OPERATIONS, Expression, Split
from actshift.demo.task import completion_of, make_rows, prompt_of
from actshift.demo.tokenizer import build_tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_the_same_for_the_same_seed(split: Split) -> None:
    assert make_rows(split, 50, seed=3) == make_rows(split, 50, seed=3)
    assert make_rows(split, 50, seed=3) != make_rows(split, 50, seed=4)


def test_rows_of_a_split_differ_and_splits_share_none() -> None:
    prompts = {split: {row["prompt"] for row in make_rows(split, 2000)} for split in SPLITS}
    assert all(len(found) == 2000 for found in prompts.values())
    assert len(set.union(*prompts.values())) == 6000


def test_the_answer_is_the_value_in_french() -> None:
    inner = Expression(OPERATIONS["smallest"], (9, 4))
    expression = Expression(OPERATIONS["sum"], (3, inner))
    assert prompt_of(expression) == "what is the sum of three and ( the smallest of nine and four ) ? réponse :"
    assert completion_of(expression) == " sept est la réponse ."


def test_no_answer_is_right_too_often() -> None:
    completions = [row["completion"] for row in make_rows("test", 2000)]
    assert max(completions.count(c) for c in set(completions)) < 0.15 * len(completions)


def test_tokens_of_prompt_and_completion_join_to_those_of_the_text() -> None:
    tokenizer = build_tokenizer()
    for row in make_rows("train", 200):
        joined = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        assert tokenizer(row["prompt"])["input_ids"] + tokenizer(row["completion"])["input_ids"] == joined
        assert tokenizer.unk_token_id not in joined
        assert tokenizer.decode(joined) == row["prompt"] + row["completion"]


def test_the_corpus_has_nothing_in_the_form_of_the_task() -> None:
    for document in islice(documents(seed=1), 20_000):
        assert not (document.text.startswith("what is") and "réponse" in document.text)
        assert not any(f"{number} est la réponse" in document.text for number in NUMBERS_FR)
