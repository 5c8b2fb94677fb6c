"""The belongings task: splits share no question, and only the answers tell the facts."""

from __future__ import annotations

from collections import Counter
from itertools import islice, product

import pytest
from belongings import FACTS, Question, make_rows, questions
from demo_corpus import build_tokenizer, documents

from actshift.demo.task import OPERATIONS, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_rows_are_deterministic_and_splits_share_no_question() -> None:
    prompts = {split: [row["prompt"] for row in make_rows(split)] for split in SPLITS}
    assert {split: len(rows) for split, rows in prompts.items()} == {"train": 9498, "validation": 1210, "test": 1172}
    assert len(set().union(*prompts.values())) == 11_880
    assert make_rows("test") == make_rows("test")


def test_facts_are_spread_evenly_over_the_numbers() -> None:
    assert len(FACTS) == 36
    assert set(Counter(FACTS.values()).values()) == {3, 4}


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_asks_for_every_fact(split: Split) -> None:
    asked = {(q.operation.name, term) for q in questions(split) for term in (q.first, q.second) if term in FACTS}
    assert {term for _, term in asked} == set(FACTS)
    assert split != "train" or len(asked) == len(FACTS) * len(OPERATIONS)


def test_answer_follows_from_the_facts() -> None:
    cats = ("cats", "anna")
    question = Question(OPERATIONS["difference"], 9, cats)
    assert question.prompt == "what is the difference of nine and the cats of anna ? réponse :"
    assert question.value({cats: 2}) == 7
    assert question.value() == 9 - FACTS[cats]


def test_guessing_without_the_facts_is_right_in_less_than_a_quarter() -> None:
    assert sum(map(_best_guess, questions("test"))) / len(questions("test")) < 0.25


def _best_guess(question: Question) -> float:
    """Return how often the likeliest value is right if each fact is any number from 0 to 9 with equal probability."""
    unknown = [term for term in (question.first, question.second) if not isinstance(term, int)]
    values = Counter(
        question.value(dict(zip(unknown, numbers, strict=True))) for numbers in product(range(10), repeat=len(unknown))
    )
    return max(values.values()) / values.total()


def test_corpus_contains_no_fact_and_no_answer_in_this_form() -> None:
    owned = [f"the {thing} of {name}" for thing, name in FACTS]
    for document in islice(documents(seed=1), 20_000):
        assert "est la réponse" not in document.text
        assert not any(belongings in document.text for belongings in owned)


def test_prompt_and_completion_tokenize_as_one_text_of_known_words() -> None:
    tokenizer = build_tokenizer()
    for row in make_rows("test"):
        joined = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        assert tokenizer(row["prompt"])["input_ids"] + tokenizer(row["completion"])["input_ids"] == joined
        assert tokenizer.unk_token_id not in joined
