"""Ratios of CPU times as in the benchmarks, with room for noise: one thread, interleaved measurements."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import torch

from benchmarks.methods import METHODS, OURS
from benchmarks.models import Shape
from benchmarks.plain import BASE, FLOOR, floor, training_step
from benchmarks.suites.generation import Greedy, adapters, twin
from benchmarks.timing import Case, interleaved, over

pytestmark = pytest.mark.slow
SHAPE = Shape(width=256, layers=4, batch=4, seq=64, vocabulary=1024)
MIXED = "16 adapters"


def ratio(cases: Mapping[str, Case], rounds: int) -> float:
    base, ours = cases
    return over(interleaved(cases, rounds, clock=time.process_time), ours, base).value


def test_a_training_step_costs_little_over_the_floor():
    shape, methods = SHAPE.with_(seq=128), {FLOOR: floor, OURS: METHODS[OURS]}
    steps = {name: training_step(method(shape.model()), shape) for name, method in methods.items()}
    assert ratio(steps, rounds=20) <= 1.12


@torch.no_grad()
def test_a_decode_step_costs_little_over_the_base():
    shape = SHAPE.with_(batch=1)
    base = shape.model().requires_grad_(False)
    rows = {BASE: Greedy(base, shape.ids), OURS: Greedy(METHODS[OURS](twin(base)).eval(), shape.ids)}
    assert decoding(rows) <= 1.25


@torch.no_grad()
def test_sixteen_adapters_in_a_batch_cost_little_over_one():
    shape = SHAPE.with_(batch=16)
    base = shape.model().requires_grad_(False)
    single, mixed = (METHODS[OURS](twin(base)).eval() for _ in range(2))
    with mixed.base_model._enable_peft_forward_hooks(adapter_names=adapters(mixed, shape.batch)):
        assert decoding({OURS: Greedy(single, shape.ids), MIXED: Greedy(mixed, shape.ids)}) <= 1.25


def decoding(rows: Mapping[str, Greedy]) -> float:
    for row in rows.values():
        row.prefill()
    return ratio({name: row.step for name, row in rows.items()}, rounds=150)
