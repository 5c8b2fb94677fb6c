"""Step-by-step decoding against `generate`, and shared weights of interleaved models."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.bars import BARS
from benchmarks.figure import Figure
from benchmarks.methods import METHODS, OURS
from benchmarks.models import TINY
from benchmarks.plain import LORA
from benchmarks.suites.generation import Greedy, adapters, measure, twin

TOKENS = 4


def generated(model, **named):
    return model.generate(input_ids=TINY.ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, **named)


def decoded_by_steps(model):
    row = Greedy(model, TINY.ids)
    row.prefill()
    tokens = [row.chosen]
    for _ in range(TOKENS - 1):
        row.step()
        tokens.append(row.chosen)
    return torch.cat([TINY.ids, *tokens], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("name", [OURS, LORA])
def test_decoding_step_by_step_equals_generate(name):
    base = TINY.model()
    assert torch.equal(decoded_by_steps(base), generated(base))
    model = METHODS[name](twin(base)).eval()
    assert torch.equal(decoded_by_steps(model), generated(model))
    named = {"adapter_names": adapters(model, TINY.batch)}
    with model.base_model._enable_peft_forward_hooks(**named):
        mixed = decoded_by_steps(model)
    assert torch.equal(mixed, generated(model, **named))


def test_a_twin_shares_weights_but_not_hooks():
    base = TINY.model()
    tensors = dict(base.named_parameters())
    METHODS[OURS](twin(base))
    other = twin(base)
    assert all(tensor is tensors[name] for name, tensor in other.named_parameters())
    assert not any(module._forward_hooks for module in base.modules())


@pytest.mark.slow
def test_the_suite_yields_the_figures_of_its_bars():
    figures = [result for result in measure(quick=True) if isinstance(result, Figure)]
    assert all(math.isfinite(figure.value) for figure in figures)
    names = {(figure.name, figure.case) for figure in figures}
    assert {(bar.name, bar.case) for bar in BARS if bar.suite == "generation"} <= names
