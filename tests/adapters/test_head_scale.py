"""HeadScale against plain tensor code, and the choice of heads where the right one is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.adapters import HeadScale, head_scores, top_heads
from actshift.errors import ActshiftError
from tests.adapters.parity import check_count, check_no_op, check_parity

SHAPES = dict(heads=st.integers(1, 5), d_head=st.integers(1, 6))


@given(**SHAPES, seed=st.integers(0, 2**16))
def test_formula_forward_and_gradient(heads, d_head, seed):
    def formula(x, t):
        per_head = x.reshape(3, 4, heads, d_head)
        return ((1 + t["scale"]) * per_head - per_head).reshape(x.shape)

    check_parity(HeadScale().build(heads * d_head, heads), formula, heads * d_head, seed)


@given(**SHAPES)
def test_count_and_no_op(heads, d_head):
    assert check_count(HeadScale(), heads * d_head, heads) == heads * d_head
    check_no_op(HeadScale(), heads * d_head, heads)


@given(**SHAPES, l1=st.floats(1e-6, 10), seed=st.integers(0, 2**16))
def test_penalty_and_its_gradient(heads, d_head, l1, seed):
    module = HeadScale(l1).build(heads * d_head, heads)
    with torch.no_grad():
        module.scale.copy_(torch.randn(heads, d_head, generator=torch.Generator().manual_seed(seed)))
    expected = l1 * sum(abs(value) for row in module.scale.tolist() for value in row)
    assert module.penalty().item() == pytest.approx(expected, rel=1e-5)
    module.penalty().backward()
    torch.testing.assert_close(module.scale.grad, l1 * torch.sign(module.scale))
    assert module.bfloat16().penalty().dtype == torch.float32


def test_without_a_weight_there_is_no_penalty():
    assert HeadScale(l1=0).build(8, 2).penalty() is None


def test_the_head_that_matters_is_found():
    module = HeadScale(l1=1e-2).build(12, 3)
    x = torch.randn(64, 12)
    target = x.clone()
    target[:, 4:8] *= 1.5  # the second head's
    stepper = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(150):
        stepper.zero_grad()
        ((x + module(x) - target).square().mean() + module.penalty()).backward()
        stepper.step()
    scores = head_scores(module.scale)
    assert top_heads({0: scores}, 1) == {0: (1,)}
    assert scores[1] > 10 * scores[[0, 2]].max()


@given(scale=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4))
def test_scores_are_norms(scale):
    expected = [sum(value**2 for value in row) ** 0.5 for row in scale]
    assert head_scores(torch.tensor(scale)).tolist() == pytest.approx(expected, abs=1e-5)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_top_heads_keeps_the_best_and_the_earlier_of_equals(rows, data):
    layers = data.draw(st.permutations(range(0, 3 * len(rows), 3)))  # in whatever order they are given
    scores = {layer: torch.tensor(row) for layer, row in zip(layers, rows, strict=True)}
    everything = [(layer, head) for layer in sorted(scores) for head in range(len(scores[layer]))]
    k = data.draw(st.integers(1, len(everything)))
    best = sorted(everything, key=lambda place: -scores[place[0]][place[1]].item())[:k]  # sorted() is stable
    chosen = top_heads(scores, k)
    assert [(layer, head) for layer, heads in chosen.items() for head in heads] == sorted(best)


def test_errors():
    with pytest.raises(ActshiftError, match="l1 must be a number from 0"):
        HeadScale(l1=-1)
    with pytest.raises(ActshiftError, match="this site has none; use site='attention_heads'"):
        HeadScale().build(8)
    with pytest.raises(ActshiftError, match="3 heads cannot share a width of 8 evenly"):
        HeadScale().check_shape(8, 3)
    for k in (0, 3, True, 1.5):
        with pytest.raises(ActshiftError, match="heads to keep must be from 1 to 2"):
            top_heads({0: torch.ones(2)}, k)
    with pytest.raises(ActshiftError, match="training has diverged"):
        top_heads({0: torch.tensor([1.0, float("nan")])}, 1)
