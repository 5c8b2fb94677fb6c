from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from actshift import JointConfig, attach
from actshift.training import TrainSettings, fit
from actshift.training.trainer import LengthGroupedSampler, TrainerMixin
from tests.characters import char_tokenizer, sums
from tests.zoo import ARCHITECTURES

SETTINGS = TrainSettings(
    method="joint", max_steps=4, gradient_accumulation=1, warmup=0, learning_rate=1e-2, weight_decay=0.1
)


def run(monkeypatch: pytest.MonkeyPatch, settings: TrainSettings) -> tuple[list[dict], list[dict]]:
    """Return the optimiser's groups after the first step, and all logs, of a joint run."""
    groups, logs = [], []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            if state.global_step == 1:
                groups.extend({**group} for group in optimizer.param_groups)

        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(logs)

    seen = logs
    ours = TrainerMixin
    original = ours.__init__

    def with_look(self, *args, callbacks, **kwargs):
        original(self, *args, callbacks=[*callbacks, Look()], **kwargs)

    monkeypatch.setattr(ours, "__init__", with_look)
    torch.manual_seed(0)
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2, task_type="CAUSAL_LM"))
    fit(model, char_tokenizer(), Dataset.from_list(sums(40)), settings)
    return groups, [entry for entry in logs if "learning_rate" in entry]


def test_both_learning_rates_are_used_and_logged(monkeypatch) -> None:
    groups, logs = run(monkeypatch, replace(SETTINGS, lora_learning_rate=1e-4))
    assert {group["name"]: group["initial_lr"] for group in groups} == {"activations": 1e-2, "weights": 1e-4}
    assert all(group["weight_decay"] == 0.1 for group in groups)
    for entry in logs:  # the schedule scales both rates
        assert entry["lora_learning_rate"] == pytest.approx(entry["learning_rate"] / 100)


def test_single_learning_rate_keeps_the_parameter_groups(monkeypatch) -> None:
    groups, logs = run(monkeypatch, SETTINGS)
    assert not any("name" in group for group in groups)
    assert not any("lora_learning_rate" in entry for entry in logs)


LENGTHS = [Random(0).randrange(5, 90) for _ in range(50)]


def batches(sampler: LengthGroupedSampler, epoch: int) -> list[tuple[int, ...]]:
    sampler.set_epoch(epoch)
    rows = list(sampler)
    return [tuple(rows[at : at + 8]) for at in range(0, len(rows), 8)]


def test_sampler_shuffles_the_same_batches_in_every_epoch():
    sampler = LengthGroupedSampler(LENGTHS, batch_size=8, seed=0)
    first, second = batches(sampler, 0), batches(sampler, 1)
    assert sorted(row for batch in first for row in batch) == list(range(50)) and len(sampler) == 50
    assert first != second and set(first) == set(second)
    assert first[-1] == second[-1] and len(first[-1]) == 2
    assert batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=0), 1) == second
    assert set(batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=1), 0)) != set(first)


def test_sampler_pads_little_and_shuffles_equal_lengths():
    whole = batches(LengthGroupedSampler(LENGTHS, batch_size=8, seed=0), 0)[:-1]
    padded = sum(8 * max(LENGTHS[row] for row in batch) for batch in whole)
    assert padded < 1.2 * sum(LENGTHS[row] for batch in whole for row in batch)
    assert any(
        list(batch) != sorted(batch) for batch in batches(LengthGroupedSampler([7] * 24, batch_size=8, seed=0), 0)
    )


@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_sampler_handles_few_rows(rows):
    assert sorted(LengthGroupedSampler(LENGTHS[:rows], batch_size=8, seed=0)) == list(range(rows))
