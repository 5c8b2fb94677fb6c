"""HeadScale and HeadVector against plain tensor code, and the selection of heads."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.adapters import HeadScale, HeadVector, adapter_from_dict, head_scores, top_heads
from actshift.errors import ActshiftError
from tests.adapters.parity import check_count, check_no_op, check_parity

SHAPES = dict(heads=st.integers(1, 5), d_head=st.integers(1, 6))


@given(**SHAPES, seed=st.integers(0, 2**16))
def test_head_scale_matches_its_formula(heads, d_head, seed):
    def formula(x, t):
        per_head = x.reshape(3, 4, heads, d_head)
        return ((1 + t["scale"]) * per_head - per_head).reshape(x.shape)

    check_parity(HeadScale().build(heads * d_head, heads), formula, heads * d_head, seed)


@given(**SHAPES)
def test_head_scale_has_d_parameters_and_starts_as_a_no_op(heads, d_head):
    assert check_count(HeadScale(), heads * d_head, heads) == heads * d_head
    check_no_op(HeadScale(), heads * d_head, heads)


@given(**SHAPES, l1=st.floats(1e-6, 10), seed=st.integers(0, 2**16))
def test_penalty_is_the_weighted_l1_norm(heads, d_head, l1, seed):
    module = HeadScale(l1).build(heads * d_head, heads)
    with torch.no_grad():
        module.scale.copy_(torch.randn(heads, d_head, generator=torch.Generator().manual_seed(seed)))
    expected = l1 * sum(abs(value) for row in module.scale.tolist() for value in row)
    assert module.penalty().item() == pytest.approx(expected, rel=1e-5)
    module.penalty().backward()
    torch.testing.assert_close(module.scale.grad, l1 * torch.sign(module.scale))
    assert module.bfloat16().penalty().dtype == torch.float32


def test_a_penalty_weight_of_zero_gives_no_penalty():
    assert HeadScale(l1=0).build(8, 2).penalty() is None


def test_training_ranks_the_head_that_matters_first():
    module = HeadScale(l1=1e-2).build(12, 3)
    x = torch.randn(64, 12)
    target = x.clone()
    target[:, 4:8] *= 1.5  # only the second head must change
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        ((x + module(x) - target).square().mean() + module.penalty()).backward()
        optimizer.step()
    scores = head_scores(module.scale)
    assert top_heads({0: scores}, 1) == {0: (1,)}
    assert scores[1] > 10 * scores[[0, 2]].max()


@given(scale=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4))
def test_head_scores_are_norms(scale):
    expected = [sum(value**2 for value in row) ** 0.5 for row in scale]
    assert head_scores(torch.tensor(scale)).tolist() == pytest.approx(expected, abs=1e-5)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_top_heads_are_the_best_and_ties_go_to_the_earlier_layer(rows, data):
    layers = data.draw(st.permutations(range(0, 3 * len(rows), 3)))  # the order of the mapping must not matter
    scores = {layer: torch.tensor(row) for layer, row in zip(layers, rows, strict=True)}
    all_heads = [(layer, head) for layer in sorted(scores) for head in range(len(scores[layer]))]
    k = data.draw(st.integers(1, len(all_heads)))
    best = sorted(all_heads, key=lambda place: -scores[place[0]][place[1]].item())[:k]  # sorted() is stable
    chosen = top_heads(scores, k)
    assert [(layer, head) for layer, heads in chosen.items() for head in heads] == sorted(best)


def test_head_scale_errors_name_the_allowed_values():
    with pytest.raises(ActshiftError, match="l1 must be a number from 0"):
        HeadScale(l1=-1)
    with pytest.raises(ActshiftError, match="this site has none; use site='attention_heads'"):
        HeadScale().build(8)
    with pytest.raises(ActshiftError, match="a width of 8 is not divisible by 3 heads"):
        HeadScale().check_shape(8, 3)


def test_top_heads_errors_name_the_allowed_values():
    for k in (0, 3, True, 1.5):
        with pytest.raises(ActshiftError, match="heads to keep must be from 1 to 2"):
            top_heads({0: torch.ones(2)}, k)
    with pytest.raises(ActshiftError, match="training has diverged"):
        top_heads({0: torch.tensor([1.0, float("nan")])}, 1)


@st.composite
def choices(draw):
    """Draw a number of heads, and a choice of them in any order, or None."""
    heads = draw(st.integers(1, 6))
    some = st.lists(st.integers(0, heads - 1), min_size=1, unique=True).map(tuple)
    return heads, draw(st.none() | some)


@given(choice=choices(), d_head=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_head_vector_matches_its_formula(choice, d_head, seed):
    heads, chosen = choice

    def formula(x, t):
        selection = torch.zeros(heads, len(t["vector"]), dtype=torch.float64)
        for row, head in enumerate(sorted(range(heads) if chosen is None else chosen)):
            selection[head, row] = 1
        return (selection @ t["vector"]).reshape(-1).expand_as(x)

    check_parity(HeadVector(chosen).build(heads * d_head, heads), formula, heads * d_head, seed)


@given(choice=choices(), d_head=st.integers(1, 6))
def test_head_vector_counts_only_the_chosen_heads_and_starts_as_a_no_op(choice, d_head):
    heads, chosen = choice
    count = check_count(HeadVector(chosen), heads * d_head, heads)
    assert count == d_head * (heads if chosen is None else len(chosen))
    check_no_op(HeadVector(chosen), heads * d_head, heads)


def test_the_order_of_chosen_heads_does_not_matter_and_json_keeps_the_choice():
    adapter = HeadVector(heads=(5, 0, 2))
    assert adapter == HeadVector(heads=[0, 2, 5]) and adapter.heads == (0, 2, 5)
    assert adapter_from_dict(json.loads(json.dumps(adapter.to_dict()))) == adapter


@pytest.mark.parametrize("heads", [(), (1, 1), (-1,), (True,), (1.0,), "12", 3])
def test_a_choice_that_is_not_distinct_head_indices_is_rejected(heads):
    with pytest.raises(ActshiftError, match="different head indices from 0 up such as"):
        HeadVector(heads=heads)


def test_a_head_that_the_site_does_not_have_is_rejected():
    with pytest.raises(ActshiftError, match="There is no head 4 at a site of 4 heads; choose from 0 to 3"):
        HeadVector(heads=(0, 4)).build(16, 4)
    with pytest.raises(ActshiftError, match="this site has none; use site='attention_heads'"):
        HeadVector().check_shape(16)
