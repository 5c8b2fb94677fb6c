"""Runs that diverge, also in their last update, end with one clear error and without a result."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from actshift import ActshiftError
from actshift.training import TrainSettings, train
from actshift.training.divergence import final_loss, magnitudes
from actshift.training.trainer import StopAtNan
from tests.characters import char_tokenizer, write_rows
from tests.training.helpers import METHODS
from tests.zoo import ARCHITECTURES

PAIRS = [{"prompt": f"{a}+1=", "chosen": str(a + 1), "rejected": "no"} for a in range(8)]
CLASSES = [{"text": f"{a}+1", "label": str(a % 2)} for a in range(8)]
OBJECTIVES = {
    "dpo": ({"objective": "dpo"}, PAIRS),
    "grpo": (
        {
            "objective": "grpo",
            "reward": ("tests.training.test_divergence:length",),
            "generations": 4,
            "max_new_tokens": 4,
        },
        None,
    ),
    "classify": ({"objective": "classify"}, CLASSES),
    "evaluated": ({"eval_share": 0.25}, None),
    "epoch": ({"method": "joint", "orthogonality": "both", "orthogonality_every": "epoch", "epochs": 1.0}, None),
}
slow = pytest.mark.slow


def length(completions, **columns):
    return [float(len(text)) + index for index, text in enumerate(completions)]


def last_update(settings: TrainSettings, rate: float) -> TrainSettings:
    """One step at a learning rate that is too high, so that no later loss could show it."""
    return replace(settings, max_steps=1, warmup=0.0, schedule="constant", learning_rate=rate)


def refuse(settings: TrainSettings, rate: float) -> None:
    with pytest.raises(
        ActshiftError, match=r"diverged.*; restart with a lower learning_rate \(it was .*folder"
    ) as error:
        train(last_update(settings, rate))
    assert f"{rate:g}" in str(error.value)
    assert [path.name for path in Path(settings.out).iterdir()] == ["checkpoints"]
    checkpoints = [path for path in Path(settings.out, "checkpoints").glob("checkpoint-*")]
    assert not any((path / "complete.json").exists() for path in checkpoints)


@pytest.mark.parametrize(
    "method, rate",
    [
        ("steering", 1e39),  # NaN
        ("jola", 1e30),  # finite, but the loss does not show it: a norm makes everything 0
        ("loreft", 1e39),  # the adapter's own step fails first
        *(pytest.param(method, rate, marks=slow) for method in METHODS for rate in (1e39, 1e20, 1e5)),
    ],
)
def test_last_update_that_diverges_is_refused(settings, method, rate):
    settings = replace(settings, **METHODS[method])
    if method == "lofit":
        with pytest.raises(ActshiftError, match="diverged"):
            train(replace(settings, max_steps=2, warmup=0.0, learning_rate=rate, schedule="constant"))
        assert not Path(settings.out, "metrics.json").exists()
    else:
        refuse(settings, rate)


@pytest.mark.parametrize("objective", [pytest.param(name, marks=slow) for name in OBJECTIVES])
def test_last_update_of_each_objective_is_checked(settings, tmp_path, objective):
    change, rows = OBJECTIVES[objective]
    if rows:
        change = {**change, "data": str(write_rows(tmp_path / "own.jsonl", rows))}
    refuse(replace(settings, **change), 1e39)


def test_checkpoint_before_a_divergence_stays(settings, monkeypatch):
    """The update of step 4 diverges, and is noticed before its checkpoint replaces an older one."""
    original = StopAtNan.on_step_end

    def spoil(self, args, state, control, model=None, **kwargs):
        if state.global_step == 4:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).view(-1)[3] = math.inf
        original(self, args, state, control, model=model, **kwargs)

    monkeypatch.setattr(StopAtNan, "on_step_end", spoil)
    with pytest.raises(
        ActshiftError, match=r"largest weight of .*actshift.* is inf after step 4; restart with a lower"
    ):
        train(settings)
    assert [path.name for path in Path(settings.out, "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 65_505.0, -1e30])
def test_one_bad_weight_in_one_tensor_is_found(value):
    model = ARCHITECTURES["llama"]()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[5, 7] = value
    with pytest.raises(ActshiftError, match=r"largest weight of model\.layers\.2\.mlp\.up_proj\.weight is"):
        StopAtNan().check_weights(model, 1, 0.1)
    model.model.layers[2].mlp.up_proj.weight.requires_grad_(False)  # only trained weights are checked
    StopAtNan().check_weights(model, 1, 0.1)


def test_base_with_large_weights_of_its_own_has_a_higher_limit():
    model, stop = nn.Linear(2, 2), StopAtNan()
    with torch.no_grad():
        model.weight[0, 0] = 70_000.0
    stop.on_train_begin(None, None, None, model=model)
    stop.check_weights(model, 1, 0.1)


@pytest.mark.parametrize(
    "key, problem", [("loss", "The loss became inf"), ("eval_loss", "The evaluation loss became inf")]
)
def test_infinite_losses_are_refused(key, problem):
    args = SimpleNamespace(learning_rate=0.5, bf16=True, metric_for_best_model="eval_loss")
    with pytest.raises(ActshiftError, match=rf"{problem} at step 3; restart with .*\(it was 0.5\) or precision fp32"):
        StopAtNan().on_log(args, SimpleNamespace(global_step=3), None, logs={key: math.inf})


def test_optimiser_state_that_is_not_finite_is_refused():
    model = nn.Linear(2, 2)
    optimizer = SimpleNamespace(state={model.weight: {"step": torch.tensor(1.0), "exp_avg": torch.tensor([math.nan])}})
    state, control = SimpleNamespace(global_step=4, max_steps=9), SimpleNamespace(should_save=True, should_log=False)
    args = SimpleNamespace(learning_rate=0.5, bf16=False)
    with pytest.raises(ActshiftError, match="the optimiser's exp_avg is nan after step 4"):
        StopAtNan().on_step_end(args, state, control, model=model, optimizer=optimizer)


def test_final_loss_is_of_the_finished_model():
    model, rows = ARCHITECTURES["llama"](), [{"input_ids": [1, 5, 6]}, {"input_ids": [1, 2], "labels": [-100, -100]}]
    loss = final_loss(model, rows, char_tokenizer(), language=True)
    ids = torch.tensor([[1, 5, 6]])
    assert loss == pytest.approx(float(model(input_ids=ids, labels=ids).loss))
    with torch.no_grad():
        model.lm_head.weight.mul_(1e6)
    assert final_loss(model, rows, char_tokenizer(), language=True) > 100
    with torch.no_grad():
        model.lm_head.weight[0] = math.nan
    assert math.isnan(final_loss(model, rows, char_tokenizer(), language=False))


def test_magnitudes_of_every_kind_of_tensor():
    tensors = {
        "a": torch.tensor([1.0, -3.0]),
        "b": torch.tensor([math.nan, 9.0]),
        "c": torch.zeros(0),
        "d": torch.tensor(2),
    }
    found = magnitudes({**tensors, "e": torch.tensor(-2.0, dtype=torch.float16), "f": None}.items())
    assert (found["a"], found["e"], {*found}) == (3.0, 2.0, {"a", "b", "e"}) and math.isnan(found["b"])
