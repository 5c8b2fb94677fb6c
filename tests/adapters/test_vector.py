"""Vector against its formula, a constant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actshift import Vector
from tests.adapters.parity import check_count, check_no_op, check_parity


@given(width=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_vector_matches_its_formula(width, seed):
    check_parity(Vector().build(width), lambda x, t: t["vector"].repeat(3, 4, 1), width, seed)


def test_vector_has_d_parameters_and_starts_as_a_no_op():
    assert check_count(Vector(), 2048) == 2048
    check_no_op(Vector(), 16)
