from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach
from actshift.analysis.extract import ModelPair, distill
from actshift.analysis.extract.distill import validation_kl
from actshift.tuner import steering_layers
from tests.analysis.extract.conftest import TEXT, with_changed_blocks


def _steered_pair() -> ModelPair:
    base, finetuned = with_changed_blocks()
    pair = ModelPair.of(base, finetuned)
    return replace(pair, base=attach(base, SteeringConfig(rank=2)))


def test_distillation_returns_the_validation_kl_of_the_best_state() -> None:
    pair, steps = _steered_pair(), []
    before = validation_kl(pair, TEXT)
    after = distill(pair, TEXT, steps=60, learning_rate=1e-2, on_step=lambda: steps.append(1))
    assert after < before and after == validation_kl(pair, TEXT)
    assert len(steps) == 60


def test_the_initial_state_is_kept_if_no_later_one_is_better() -> None:
    pair = _steered_pair()
    parameters = [p for layer in steering_layers(pair.base).values() for p in layer.parameters()]
    parameters[0].requires_grad_(False)
    before = [p.detach().clone() for p in parameters]
    kl = validation_kl(pair, TEXT)
    assert distill(pair, TEXT, steps=3, learning_rate=100.0) == kl
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
    assert all(p.grad is None for p in parameters)


def test_a_distillation_that_diverges_is_reported() -> None:
    pair = _steered_pair()
    with torch.no_grad():
        next(iter(steering_layers(pair.base).values())).lora_steer["default"].up.weight.fill_(float("nan"))
    with pytest.raises(ActshiftError, match="diverged; use a lower learning rate"):
        distill(pair, TEXT, steps=1)
