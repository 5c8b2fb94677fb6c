"""Gradient initialisation, interventions from a file, and a saved adapter as the start."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actshift import ActshiftError, Intervention, LowRank, load_adapter
from actshift.loading import load_model
from actshift.training import TrainSettings, build, plan, train

UNEVEN = [
    Intervention(LowRank(rank=3), layers=(0, 2)),
    Intervention(LowRank(rank=1, activation=None), site="post_mlp", layers=(1,)),
]


@pytest.fixture
def located(tmp_path: Path) -> Path:
    path = tmp_path / "located.json"
    path.write_text(json.dumps({"interventions": [intervention.to_dict() for intervention in UNEVEN]}))
    return path


def tensors(settings: TrainSettings) -> dict[str, torch.Tensor]:
    return load_file(Path(str(settings.out)) / "adapter_model.safetensors")


def test_slow_bf16_is_a_warning_with_the_measured_cost(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    half = replace(settings, precision="bf16")
    assert 0 < build.bf16_cost() < 1000
    for cost in (0.3, 14.23):
        monkeypatch.setattr(build, "bf16_cost", lambda cost=cost: cost)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            dtypes = [build.load_base(chosen)[0].dtype for chosen in (half, half, settings)]
        assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]  # auto is fp32 on any CPU
        assert len(shown) == (cost > 1)
    assert "matrix products take 14.2 times as long in bf16 as in fp32; use precision fp32" in str(shown[0].message)


@pytest.mark.parametrize("method", ["steering", "joint"])
def test_gradient_init_trains_and_loads_without_data(settings, method, tmp_path):
    begun = replace(settings, init="gradient", method=method, max_steps=2, learning_rate=1e-5, orthogonality="read")
    if method == "joint":
        begun = replace(begun, orthogonality="none")  # the constraint would change W_down after the first step
    train(begun)
    down = next(value for name, value in tensors(begun).items() if name.endswith("down.weight"))
    assert torch.allclose(down @ down.T, (down[0] @ down[0]) * torch.eye(8), atol=1e-3)  # as the gradient left it
    loaded = load_adapter(load_model(str(settings.model))[0], str(begun.out))
    assert loaded.peft_config["default"].all_interventions[0].adapter.init == "gradient"


@pytest.mark.slow
def test_resume_after_gradient_init_is_bit_identical(settings, monkeypatch):
    from actshift.training.trainer import StopAtNan

    begun = replace(settings, init="gradient", max_steps=4)
    train(begun)
    stopped = replace(begun, out=str(begun.out) + "-again")

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StopAtNan, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    train(stopped, resume=True)
    for name, value in tensors(begun).items():
        assert torch.equal(value, tensors(stopped)[name])


def test_interventions_are_read_from_a_file(settings, located):
    uneven = replace(settings, interventions=str(located), init="gradient", max_steps=2)
    assert [(place.layer, place.site, place.parameters) for place in plan(uneven).places] == [
        (0, "post_block", 3 * 64),
        (1, "post_mlp", 64),
        (2, "post_block", 3 * 64),
    ]
    result = train(uneven)
    assert result.fit.trainable == 7 * 64
    assert f"in {located}." in (Path(str(uneven.out)) / "README.md").read_text()
    stored = load_adapter(load_model(str(settings.model))[0], str(uneven.out)).peft_config["default"]
    expected = tuple(replace(each, adapter=replace(each.adapter, init="gradient")) for each in UNEVEN)
    assert stored.all_interventions == expected


def test_settings_that_contradict_the_file_raise(settings, located, tmp_path):
    with pytest.raises(ActshiftError, match="The file of interventions replaces rank"):
        plan(replace(settings, interventions=str(located), rank=4))
    with pytest.raises(ActshiftError, match="cannot be read"):
        plan(replace(settings, interventions=str(tmp_path / "none.json")))
    other = tmp_path / "other.json"
    other.write_text('{"rank": 3}')
    with pytest.raises(ActshiftError, match="contains rank, not one list called interventions"):
        plan(replace(settings, interventions=str(other)))
    other.write_text('{"interventions": [{"siet": "post_mlp"}]}')
    with pytest.raises(ActshiftError, match="did you mean 'site'"):
        plan(replace(settings, interventions=str(other)))


def test_gradient_init_requires_low_rank(settings):
    with pytest.raises(ActshiftError, match="vector has no init"):
        train(replace(settings, adapter="vector", init="gradient"))


def test_start_copies_a_saved_adapter(settings: TrainSettings, tmp_path: Path) -> None:
    first = replace(settings, adapter="vector", max_steps=3)
    train(first)
    again = replace(first, out=str(tmp_path / "again"), start=first.out, learning_rate=1e-12)
    train(again)
    saved, begun = (load_file(Path(str(out), "adapter_model.safetensors")) for out in (first.out, again.out))
    assert all(torch.allclose(saved[name], begun[name], atol=1e-6) and saved[name].any() for name in saved)


def test_invalid_start_raises_before_anything_is_written(settings: TrainSettings) -> None:
    with pytest.raises(ActshiftError, match="nowhere"):
        train(replace(settings, start="/nowhere"))
    with pytest.raises(ActshiftError, match="LoFiT selects its heads"):
        train(replace(settings, adapter="lofit", start=str(settings.out)))
    assert not Path(str(settings.out)).exists()
