"""The generator: its bounds, its distribution, and the settings that it refuses."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain, islice
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.tasks.listops import Expression, draw, evaluate, generate, stream

OPERATORS = ("MIN", "MAX", "MED", "SM")


def depth_of(tokens: str) -> int:
    depth = deepest = 0
    for token in tokens.split():
        depth += token.startswith("[") - (token == "]")
        deepest = max(deepest, depth)
    return deepest


def plain_draw(rng: random.Random, depth: int, max_depth: int, max_args: int) -> list[str]:
    """The rules in words, without a short cut."""
    if depth == max_depth or rng.random() >= 0.25:
        return [str(rng.randrange(10))]
    arguments = [plain_draw(rng, depth + 1, max_depth, max_args) for _ in range(rng.randint(2, max_args))]
    return [f"[{rng.choice(OPERATORS)}", *chain.from_iterable(arguments), "]"]


@hypothesis_settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    max_depth=st.integers(3, 12),
    max_args=st.integers(2, 10),
    min_length=st.integers(0, 6),
)
def test_what_is_drawn_is_distinct_in_bounds_and_says_the_truth_about_itself(
    seed: int, max_depth: int, max_args: int, min_length: int
) -> None:
    drawn = list(islice(stream(seed, max_depth, max_args, min_length, max_length=40), 20))
    assert len({expression.tokens for expression in drawn}) == 20
    for expression in drawn:
        assert min_length < expression.length < 40
        assert expression.length == len(expression.tokens.split())
        assert expression.depth == depth_of(expression.tokens) < max_depth
        assert expression.value == evaluate(expression.tokens) == evaluate(expression.source)


def test_a_seed_gives_the_same_expressions_everywhere() -> None:
    assert [expression.tokens for expression in generate(3, seed=7, max_length=24)] == SEED_7
    assert generate(50, seed=1)[:20] == generate(20, seed=1)
    assert generate(20, seed=1) != generate(20, seed=2)


SEED_7 = [
    "[MIN 9 3 6 6 0 [MED 5 [MAX 6 2 ] 4 1 ] 1 9 ]",
    "[MED [MAX 1 2 ] 5 [MAX 6 [MED 2 9 5 ] ] 4 9 1 2 ]",
    "[MED 4 6 [SM 6 4 6 6 1 ] 7 4 0 1 9 1 ]",
]


@pytest.mark.parametrize("min_length", [0, 3])
def test_the_short_cut_leaves_the_distribution_as_it_was(min_length: int) -> None:
    rng, n, max_length = random.Random(0), 20_000, 12
    fast: Counter[tuple[int, str]] = Counter()
    while fast.total() < n:
        drawn = draw(rng, max_depth=4, max_args=4, min_length=min_length, max_length=max_length)
        if drawn is not None:
            fast[drawn.length, drawn.tokens[:3]] += 1
    plain: Counter[tuple[int, str]] = Counter()
    while plain.total() < n:
        tokens = plain_draw(rng, depth=1, max_depth=4, max_args=4)
        if min_length < len(tokens) < max_length:
            plain[len(tokens), " ".join(tokens)[:3]] += 1
    for kind in fast.keys() | plain.keys():
        spread = sqrt(fast[kind] + plain[kind])  # of the difference of two counts
        assert abs(fast[kind] - plain[kind]) < 4.5 * spread, kind


def test_finds_every_expression_that_there_is_and_refuses_one_more() -> None:
    flat = {"min_length": 3, "max_length": 5}  # an operator on two digits: 4 · 10 · 10
    assert {expression.tokens for expression in generate(400, seed=0, **flat)} == {
        f"[{operator} {a} {b} ]" for operator in OPERATORS for a in range(10) for b in range(10)
    }
    with pytest.raises(ActshiftError, match=r"After 400 distinct expressions, 100,000 draws.*brought no other"):
        generate(401, seed=0, **flat)


def test_digits_count_only_where_the_lengths_let_them() -> None:
    assert {expression.tokens for expression in generate(10, seed=0, min_length=0, max_length=2)} == set("0123456789")
    assert all(expression.depth for expression in generate(200, seed=0, min_length=1))
    assert generate(1, seed=0, max_depth=1, min_length=0)[0] == Expression("8", value=8, length=1, depth=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": -1}, "n must be 0 or more, got -1"),
        ({"max_depth": 0}, "max_depth must be at least 1, got 0"),
        ({"max_args": 1}, "max_args must be at least 2, got 1"),
        ({"min_length": -1}, "min_length must be at least 0, got -1"),
        ({"max_length": 17}, "No expression has 16 < length < 17.*max_length above 17"),
        ({"min_length": 1, "max_length": 4}, "an operator 4 or more; give a max_length above 4"),
        ({"min_length": 0, "max_length": 1}, "give a max_length above 1"),
        ({"max_depth": 1}, "With max_depth=1 there are only the ten digits"),
    ],
)
def test_settings_that_nothing_fits_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        generate(**{"n": 5, "seed": 0, **settings})


def test_the_stream_refuses_before_anything_is_drawn() -> None:
    with pytest.raises(ActshiftError, match="max_args must be at least 2"):
        stream(seed=0, max_args=1)
