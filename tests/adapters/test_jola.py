"""JoLA against plain tensor code, and its gates against their closed-form distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.adapters import JoLA
from actshift.adapters.jola import HardConcrete
from actshift.errors import ActshiftError
from tests.adapters.parity import check_count, check_no_op, check_parity

SHAPES = dict(heads=st.integers(1, 5), d_head=st.integers(1, 6))
SEEDS = st.integers(0, 2**16)


def _sampled(log_alpha, beta):
    """Return hard-concrete gates, computed as arXiv 1712.01312 writes them."""
    u = torch.rand(len(log_alpha), dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    s = 1 / (1 + torch.exp(-(torch.log(u) - torch.log(1 - u) + log_alpha) / beta))
    return torch.minimum(torch.ones(()), torch.maximum(torch.zeros(()), s * 1.2 - 0.1))


def _rounded(log_alpha, beta):
    return (torch.clamp(torch.sigmoid(log_alpha / beta) * 1.2 - 0.1, 0, 1) > 0.5).double()


@given(**SHAPES, seed=SEEDS, beta=st.floats(0.2, 1), training=st.booleans())
def test_jola_matches_its_formula(heads, d_head, seed, beta, training):
    gate = _sampled if training else _rounded

    def formula(x, t):
        per_head = x.reshape(3, 4, heads, d_head)
        multiplicative = gate(t["scale_gate.log_alpha"], beta)[:, None]
        additive = gate(t["vector_gate.log_alpha"], beta)[:, None]
        shift = multiplicative * (t["scale"] * per_head) + additive * t["vector"]
        return shift.reshape(x.shape)

    module = JoLA(temperature=beta).build(heads * d_head, heads).train(training)
    check_parity(module, formula, heads * d_head, seed)


@given(**SHAPES)
def test_jola_has_2d_plus_2_heads_parameters_and_starts_as_a_no_op(heads, d_head):
    assert check_count(JoLA(), heads * d_head, heads) == 2 * heads * d_head + 2 * heads
    check_no_op(JoLA(), heads * d_head, heads)


@settings(max_examples=15)
@given(log_alpha=st.floats(-2.5, 2.5), beta=st.floats(0.1, 1), seed=SEEDS)
def test_sampled_gates_have_the_closed_form_distribution(log_alpha, beta, seed):
    gates = HardConcrete(200_000, 0.5, beta)
    with torch.no_grad():
        gates.log_alpha.fill_(log_alpha)
    torch.manual_seed(seed)
    z = gates(beta)
    tolerance = 5 * 0.5 / math.sqrt(200_000)  # five standard errors of a mean of values in [0, 1]

    def above(t):  # P(z > t), from the logistic distribution of logit(u)
        s = (t + 0.1) / 1.2
        return 1 / (1 + math.exp(beta * math.log(s / (1 - s)) - log_alpha))

    assert (z > 0).double().mean().item() == pytest.approx(above(0), abs=tolerance)
    assert (z == 1).double().mean().item() == pytest.approx(above(1), abs=tolerance)
    assert z.double().mean().item() == pytest.approx(
        sum(above((i + 0.5) / 1000) for i in range(1000)) / 1000, abs=tolerance
    )
    assert gates.open_probability(beta)[0].item() == pytest.approx(above(0), abs=1e-6)


@given(**SHAPES, seed=SEEDS, l0=st.floats(1e-6, 1), beta=st.floats(0.1, 1))
def test_penalty_is_the_weighted_expected_number_of_open_gates(heads, d_head, seed, l0, beta):
    module = JoLA(l0=l0, temperature=beta).build(heads * d_head, heads)
    draw = torch.Generator().manual_seed(seed)
    total = 0.0
    for gates in (module.scale_gate, module.vector_gate):
        with torch.no_grad():
            gates.log_alpha.copy_(2 * torch.randn(heads, generator=draw))
    module.penalty().backward()
    for gates in (module.scale_gate, module.vector_gate):
        p = [1 / (1 + math.exp(-(value + beta * math.log(11)))) for value in gates.log_alpha.tolist()]
        total += l0 * sum(p)
        assert gates.log_alpha.grad.tolist() == pytest.approx([l0 * q * (1 - q) for q in p], rel=1e-3, abs=1e-9)
    assert module.penalty().item() == pytest.approx(total, rel=1e-5)
    assert module.bfloat16().penalty().dtype == torch.float32


def test_a_penalty_weight_of_zero_gives_no_penalty():
    assert JoLA(l0=0).build(8, 2).penalty() is None


def test_a_fresh_gate_is_open_with_probability_0_9():
    module = JoLA(temperature=0.5).build(8, 2)
    assert module.scale_gate.open_probability(0.5).tolist() == pytest.approx([0.9, 0.9])
    assert module.eval().vector_gate(0.5).tolist() == [1, 1]


def test_temperature_falls_geometrically_and_then_stays_constant():
    module = JoLA(temperature=0.8, end_temperature=0.2, anneal_steps=4).build(8, 2).bfloat16()
    temperatures = []
    for _ in range(6):
        temperatures.append(float(module.temperature()))
        module.after_step()
    assert temperatures == pytest.approx([0.8, 0.8 / 4**0.25, 0.4, 0.8 / 4**0.75, 0.2, 0.2])
    constant = JoLA(temperature=0.8).build(8, 2)
    constant.after_step()
    assert constant.temperature() == 0.8


def test_a_reloaded_adapter_continues_at_the_same_step():
    adapter = JoLA(anneal_steps=5)
    module = adapter.build(8, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    module.after_step()
    module.after_step()
    reloaded = adapter.build(8, 2)
    reloaded.load_state_dict(module.state_dict())
    x = torch.randn(3, 8)
    for mode in (True, False):
        outputs = []
        for shift in (module.train(mode), reloaded.train(mode)):
            torch.manual_seed(1)
            outputs.append(shift(x))
        assert torch.equal(*outputs)
    module.after_step()
    reloaded.after_step()
    assert module.temperature() == reloaded.temperature() < 0.33


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finished_gates_keep_their_evaluation_values_in_training(dtype):
    module = JoLA(l0=10, temperature=1.0).build(64, 32).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    x = torch.randn(2, 64, dtype=dtype)
    evaluated = module.eval()(x)
    assert 0 < torch.count_nonzero(module.scale_gate(1.0)) < 32
    module.finish()
    stored = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.finish()
    optimizer = torch.optim.AdamW([module.scale_gate.log_alpha, module.vector_gate.log_alpha], lr=0.1)
    for _ in range(50):
        assert torch.equal(module.train()(x), evaluated) and torch.equal(module.eval()(x), evaluated)
        (module.train()(x).square().sum() + module.penalty()).backward()
        optimizer.step()
    reloaded = JoLA().build(64, 32).to(dtype)
    reloaded.load_state_dict(stored)
    assert torch.equal(reloaded.train()(x), evaluated) and torch.equal(reloaded.eval()(x), evaluated)


def test_training_finds_which_heads_need_a_vector_and_which_a_factor():
    module = JoLA(l0=5e-3).build(12, 3)
    x = torch.randn(256, 12)
    target = x.clone()
    target[:, :4] += 1  # the first head needs a vector
    target[:, 4:8] *= 2  # the second needs a factor, the third nothing
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        ((x + module(x) - target).square().mean() + module.penalty()).backward()
        optimizer.step()
        module.after_step()
    module.finish()
    assert module.vector_gate(0.33).tolist() == [1, 0, 0]
    assert module.scale_gate(0.33).tolist() == [0, 1, 0]
    assert (x + module.eval()(x) - target).square().mean() < 0.02


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l0": -1}, "l0 must be a number from 0"),
        ({"temperature": 0}, "temperature must be a number above 0 and up to 1 such as 0.33, got 0"),
        ({"end_temperature": 1.5}, "end_temperature must be a number above 0 and up to 1"),
        ({"anneal_steps": 0}, "anneal_steps must be a number of optimiser steps from 1 up"),
        ({"end_temperature": 0.5, "anneal_steps": 10}, "end_temperature 0.5 is above temperature 0.33"),
    ],
)
def test_bad_fields_are_errors_that_name_the_allowed_values(fields, message):
    with pytest.raises(ActshiftError, match=message):
        JoLA(**fields)


def test_a_site_without_heads_is_rejected():
    with pytest.raises(ActshiftError, match="this site has none; use site='attention_heads'"):
        JoLA().build(8)
