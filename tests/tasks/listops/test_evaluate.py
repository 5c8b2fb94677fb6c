"""What an expression works out to: by hand, against 10,000 labelled rows, and what is refused."""

from __future__ import annotations

import gzip
import json

import pytest

from actshift.errors import ActshiftError
from actshift.tasks.listops import Expression, evaluate
from tests.tasks.shared import SHARED, needs_shared

LABELLED = SHARED / "listops/spinn_test_d20s.jsonl.gz"


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
        ("[MED 5 ]", 5),  # the grammar draws two arguments or more; the meaning does not need them
        ("( ( ( ( ( [SM 6 ) 5 ) 9 ) 0 ) ] )", 0),
        ("( ( ( [MAX ( ( ( [MIN 3 ) 8 ) ] ) ) 2 ) ] )", 3),
        ("  [MAX 1\n2 ] ", 2),
    ],
)
def test_values(tokens: str, value: int) -> None:
    assert evaluate(tokens) == value


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("", "holds one expression, and '' holds 0"),
        ("1 2", "holds 2"),
        ("[MAX 1 2", "1 operators are not closed"),
        ("[MAX 1 2 ] ]", "closes an operator without arguments, or none"),
        ("[MAX ]", "closes an operator without arguments"),
        ("[MAXX 1 2 ]", r"no token '\[MAXX' \(did you mean '\[MAX'\?\)"),
        ("[MAX 1 12 ]", "no token '12'"),
        ("[MAX 1 2]", r"no token '2\]'.*separated by spaces"),
        ("[MAX 1 ² ]", "no token '²'"),
    ],
)
def test_what_is_no_expression_is_refused(tokens: str, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        evaluate(tokens)


def test_deep_nesting_needs_no_recursion() -> None:
    assert evaluate("[MAX 3 " * 5_000 + "7" + " ]" * 5_000) == 7


@needs_shared
def test_agrees_with_every_labelled_row_in_both_forms() -> None:
    with gzip.open(LABELLED, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 10_000
    for row in rows:
        fields, answer = row["prompt_fields"], row["answer"]
        assert evaluate(fields["tokens"]) == evaluate(fields["source"]) == answer
        assert Expression(fields["tokens"], answer, fields["length"], fields["depth"]).source == fields["source"]
