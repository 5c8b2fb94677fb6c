from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from actshift import JointConfig, attach
from actshift.training import TrainSettings, fit
from actshift.training.trainer import with_mixin
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
    ours = with_mixin(SFTTrainer)
    original = ours.__init__

    def with_look(self, *args, callbacks, **kwargs):
        original(self, *args, callbacks=[*callbacks, Look()], **kwargs)

    monkeypatch.setattr(ours, "__init__", with_look)
    torch.manual_seed(0)
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2, task_type="CAUSAL_LM"))
    fit(model, char_tokenizer(), Dataset.from_list(sums(40)), settings)
    return groups, [entry for entry in logs if "learning_rate" in entry]


def test_each_half_has_its_rate_and_both_are_logged(monkeypatch) -> None:
    groups, logs = run(monkeypatch, replace(SETTINGS, lora_learning_rate=1e-4))
    assert {group["name"]: group["initial_lr"] for group in groups} == {"activations": 1e-2, "weights": 1e-4}
    assert all(group["weight_decay"] == 0.1 for group in groups)
    for entry in logs:  # one schedule, at either rate
        assert entry["lora_learning_rate"] == pytest.approx(entry["learning_rate"] / 100)


def test_one_rate_leaves_the_groups_as_they_are(monkeypatch) -> None:
    groups, logs = run(monkeypatch, SETTINGS)
    assert not any("name" in group for group in groups)
    assert not any("lora_learning_rate" in entry for entry in logs)
