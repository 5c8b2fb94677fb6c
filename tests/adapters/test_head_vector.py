"""HeadVector against plain tensor code: chosen heads get their vector, the others nothing."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.adapters import HeadVector, adapter_from_dict
from actshift.errors import ActshiftError
from tests.adapters.parity import check_count, check_no_op, check_parity


@st.composite
def choices(draw):
    """A number of heads, and a choice of them in any order, or None."""
    heads = draw(st.integers(1, 6))
    some = st.lists(st.integers(0, heads - 1), min_size=1, unique=True).map(tuple)
    return heads, draw(st.none() | some)


@given(choice=choices(), d_head=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_formula_forward_and_gradient(choice, d_head, seed):
    heads, chosen = choice

    def formula(x, t):
        pick = torch.zeros(heads, len(t["vector"]), dtype=torch.float64)
        for row, head in enumerate(sorted(range(heads) if chosen is None else chosen)):
            pick[head, row] = 1
        return (pick @ t["vector"]).reshape(-1).expand_as(x)

    check_parity(HeadVector(chosen).build(heads * d_head, heads), formula, heads * d_head, seed)


@given(choice=choices(), d_head=st.integers(1, 6))
def test_count_and_no_op(choice, d_head):
    heads, chosen = choice
    count = check_count(HeadVector(chosen), heads * d_head, heads)
    assert count == d_head * (heads if chosen is None else len(chosen))
    check_no_op(HeadVector(chosen), heads * d_head, heads)


def test_order_is_no_matter_and_json_keeps_the_choice():
    adapter = HeadVector(heads=(5, 0, 2))
    assert adapter == HeadVector(heads=[0, 2, 5]) and adapter.heads == (0, 2, 5)
    assert adapter_from_dict(json.loads(json.dumps(adapter.to_dict()))) == adapter


@pytest.mark.parametrize("heads", [(), (1, 1), (-1,), (True,), (1.0,), "12", 3])
def test_a_bad_choice(heads):
    with pytest.raises(ActshiftError, match="different head indices from 0 up such as"):
        HeadVector(heads=heads)


def test_a_choice_that_the_site_does_not_have():
    with pytest.raises(ActshiftError, match="there is no head 4 at a site of 4 heads; choose from 0 to 3"):
        HeadVector(heads=(0, 4)).build(16, 4)
    with pytest.raises(ActshiftError, match="this site has none; use site='attention_heads'"):
        HeadVector().check_shape(16)
