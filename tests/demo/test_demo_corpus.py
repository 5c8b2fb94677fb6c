"""The pretraining corpus is deterministic, inside the vocabulary, and free of the test split."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from demo_corpus import FORMS, MIXTURE, build_tokenizer, documents, draw_pretraining_expression
from hypothesis import given
from hypothesis import strategies as st
from pretrain_demo import held_out_expressions

from actshift.demo.task import OPERATIONS, Expression


def test_documents_are_the_same_for_the_same_seed() -> None:
    first, again, other = (list(islice(documents(seed), 200)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_mixture_is_a_distribution() -> None:
    assert abs(sum(MIXTURE.values()) - 1) < 1e-9


@pytest.mark.slow
def test_every_word_of_the_corpus_has_a_token() -> None:
    tokenizer = build_tokenizer()
    texts = [document.text for document in islice(documents(seed=2), 20_000)]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts)["input_ids"])


@given(seed=st.integers(0, 2**32))
def test_pretraining_never_contains_a_held_out_expression(seed: int) -> None:
    def parts(expression: Expression) -> list[Expression]:
        return [expression, *(p for a in expression.arguments if isinstance(a, Expression) for p in parts(a))]

    drawn = parts(draw_pretraining_expression(random.Random(seed)))
    assert not any(part.depth > 1 and part.split == "test" for part in drawn)


def test_held_out_expressions_are_held_out() -> None:
    assert all(expression.is_held_out for expression in held_out_expressions(depth=2, n=50))


def test_three_forms_of_an_expression() -> None:
    expression = Expression(OPERATIONS["largest"], (7, Expression(OPERATIONS["difference"], (1, 9))))
    assert {name: form(expression).text for name, form in FORMS.items()} == {
        "listops": "[MAX 7 [DIFF 1 9 ] ] = 8",
        "statement": "the largest of seven and ( the difference of one and nine ) is eight .",
        "question": "what is the largest of seven and ( the difference of one and nine ) ? answer : eight .",
    }
