"""Generated ListOps expressions: their values, bounds, distribution and splits, and the settings that raise."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from itertools import chain, islice
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.tasks.benchmarks.listops import OPERATORS, Expression, draw, stream
from tests.tasks.published import PUBLISHED, needs_published

FIRST_OF_SEED_7 = [
    "[MIN 9 3 6 6 0 [MED 5 [MAX 6 2 ] 4 1 ] 1 9 ]",
    "[MED [MAX 1 2 ] 5 [MAX 6 [MED 2 9 5 ] ] 4 9 1 2 ]",
    "[MED 4 6 [SM 6 4 6 6 1 ] 7 4 0 1 9 1 ]",
]


def take(count: int, seed: int, **settings: int) -> list[Expression]:
    """Return the first expressions of a stream."""
    return list(islice(stream(seed, **settings), count))


def evaluate(tokens: str) -> int:
    """Return the value of an expression in prefix form, or in the binary form with round brackets."""
    outside: list[int] = []
    opened: list[tuple[str, list[int]]] = []
    for token in tokens.replace("(", " ").replace(")", " ").split():
        if token.startswith("["):
            opened.append((token[1:], []))
            continue
        value = int(token) if token != "]" else (lambda operator, digits: OPERATORS[operator](digits))(*opened.pop())
        (opened[-1][1] if opened else outside).append(value)
    assert not opened
    [value] = outside
    return value


def depth_of(tokens: str) -> int:
    depth = deepest = 0
    for token in tokens.split():
        depth += token.startswith("[") - (token == "]")
        deepest = max(deepest, depth)
    return deepest


def plain_draw(rng: random.Random, depth: int, max_depth: int, max_args: int) -> list[str]:
    """Return the tokens of an expression, drawn by the grammar without any shortcut."""
    if depth == max_depth or rng.random() >= 0.25:
        return [str(rng.randrange(10))]
    arguments = [plain_draw(rng, depth + 1, max_depth, max_args) for _ in range(rng.randint(2, max_args))]
    return [f"[{rng.choice([*OPERATORS])}", *chain.from_iterable(arguments), "]"]


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        ("7", 7),
        ("[MIN 4 7 ]", 4),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[SM 6 5 9 0 ]", 0),
        ("[MED 1 9 3 ]", 3),
        ("[MED 1 2 ]", 1),  # the mean 1.5, rounded down
        ("[MED 9 0 4 3 ]", 3),
        ("[MED 5 ]", 5),
        ("( ( ( ( ( [SM 6 ) 5 ) 9 ) 0 ) ] )", 0),
        ("( ( ( [MAX ( ( ( [MIN 3 ) 8 ) ] ) ) 2 ) ] )", 3),
        ("  [MAX 1\n2 ] ", 2),
    ],
)
def test_operators_have_their_published_meaning(tokens: str, value: int) -> None:
    assert evaluate(tokens) == value


@needs_published
def test_operators_agree_with_10_000_labelled_rows_in_both_forms() -> None:
    with gzip.open(PUBLISHED / "listops/spinn_test_d20s.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 10_000
    for row in rows:
        assert evaluate(row["prompt_fields"]["tokens"]) == evaluate(row["prompt_fields"]["source"]) == row["answer"]


@hypothesis_settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    max_depth=st.integers(3, 12),
    max_args=st.integers(2, 10),
    min_length=st.integers(0, 6),
)
def test_expressions_are_distinct_within_bounds_and_have_the_right_value(
    seed: int, max_depth: int, max_args: int, min_length: int
) -> None:
    drawn = list(islice(stream(seed, max_depth, max_args, min_length, max_length=40), 20))
    assert len({expression.tokens for expression in drawn}) == 20
    for expression in drawn:
        assert min_length < len(expression.tokens.split()) < 40
        assert depth_of(expression.tokens) < max_depth
        assert expression.value == evaluate(expression.tokens)


def test_a_seed_gives_the_same_expressions_on_every_machine() -> None:
    assert [expression.tokens for expression in take(3, seed=7, max_length=24)] == FIRST_OF_SEED_7
    assert take(50, seed=1)[:20] == take(20, seed=1)
    assert take(20, seed=1) != take(20, seed=2)


@pytest.mark.parametrize("min_length", [0, 3])
def test_stopping_a_draw_early_does_not_change_the_distribution(min_length: int) -> None:
    rng, n, max_length = random.Random(0), 20_000, 12
    fast: Counter[tuple[int, str]] = Counter()
    while fast.total() < n:
        drawn = draw(rng, max_depth=4, max_args=4, min_length=min_length, max_length=max_length)
        if drawn is not None:
            fast[len(drawn.tokens.split()), drawn.tokens[:3]] += 1
    plain: Counter[tuple[int, str]] = Counter()
    while plain.total() < n:
        tokens = plain_draw(rng, depth=1, max_depth=4, max_args=4)
        if min_length < len(tokens) < max_length:
            plain[len(tokens), " ".join(tokens)[:3]] += 1
    for cell in fast.keys() | plain.keys():
        spread = sqrt(fast[cell] + plain[cell])  # the standard deviation of the difference of two counts
        assert abs(fast[cell] - plain[cell]) < 4.5 * spread, cell


def test_all_possible_expressions_are_found_and_one_more_raises() -> None:
    flat = {"min_length": 3, "max_length": 5}  # an operator on two digits: 4 · 10 · 10
    assert {expression.tokens for expression in take(400, seed=0, **flat)} == {
        f"[{operator} {a} {b} ]" for operator in OPERATORS for a in range(10) for b in range(10)
    }
    with pytest.raises(ActshiftError, match=r"After 400 distinct expressions, 100,000 draws.*found no other one"):
        take(401, seed=0, **flat)


def test_single_digits_occur_only_if_the_minimum_length_allows_them() -> None:
    assert {expression.tokens for expression in take(10, seed=0, min_length=0, max_length=2)} == set("0123456789")
    assert all(depth_of(expression.tokens) for expression in take(200, seed=0, min_length=1))
    assert take(1, seed=0, max_depth=1, min_length=0)[0] == Expression("8", value=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_depth": 0}, "max_depth must be at least 1, got 0"),
        ({"max_args": 1}, "max_args must be at least 2, got 1"),
        ({"min_length": -1}, "min_length must be at least 0, got -1"),
        ({"max_length": 17}, "No expression has 16 < length < 17.*max_length above 17"),
        ({"min_length": 1, "max_length": 4}, "an operator 4 or more; use a max_length above 4"),
        ({"min_length": 0, "max_length": 1}, "use a max_length above 1"),
        ({"max_depth": 1}, "max_depth=1 only allows the ten digits"),
    ],
)
def test_settings_that_no_expression_fits_raise_before_any_draw(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        stream(seed=0, **settings)


def test_generated_splits_are_disjoint_and_reproducible() -> None:
    task = get_task("listops")
    splits = {split: task.load(split, limit=100) for split in ("train", "validation", "test")}
    prompts = [prompt for rows in splits.values() for prompt in rows["prompt"]]
    assert len(set(prompts)) == 300
    for row in splits["test"]:
        tokens = row["prompt"].removesuffix("\nValue:")
        assert row["completion"] == f" {evaluate(tokens)}" and 16 < len(tokens.split()) < 64
        assert task.scorer(row["completion"], row)
    assert task.load("test", limit=3).to_list() == splits["test"].to_list()[:3]
