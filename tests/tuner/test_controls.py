"""Run-time strength, and parameter groups for an optimiser."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import (
    ActshiftError,
    JointConfig,
    SteeringConfig,
    Vector,
    attach,
    load_adapter,
    save_half,
    set_strength,
    strength,
)
from actshift.tuner import parameter_groups, read_config
from actshift.tuner.loading import lora_model
from tests.contract.cases import randomise, run
from tests.zoo import ARCHITECTURES


def test_strength_per_adapter(two, base_folder):
    base = run(AutoModelForCausalLM.from_pretrained(base_folder), "llama")
    full = run(two, "llama")
    with strength(two, 0.5, "first"):
        half = run(two, "llama")
    with strength(two, 0, "second"):
        assert torch.equal(run(two, "llama"), full)  # the other one's strength is another matter
    assert not torch.allclose(half, full) and not torch.allclose(half, base)
    two.set_strength(0.0)
    assert torch.equal(run(two, "llama"), base)
    two.set_strength(1, "first")
    assert torch.equal(run(two, "llama"), full)


@pytest.mark.parametrize("joint", [False, True])
def test_an_adapter_is_loaded_with_the_strength_of_its_config(base_folder, joint, tmp_path):
    steering = SteeringConfig(adapter=Vector(), strength=3, task_type="CAUSAL_LM")
    config = JointConfig(r=2, steering=steering, orthogonality=None, task_type="CAUSAL_LM") if joint else steering
    fresh = lambda: AutoModelForCausalLM.from_pretrained(base_folder)  # noqa: E731
    model = attach(fresh(), config)
    randomise(model)
    expected = run(model.eval(), "llama")
    model.save_pretrained(str(tmp_path / "a"))
    assert torch.equal(run(load_adapter(fresh(), str(tmp_path / "a")).eval(), "llama"), expected)
    if joint:
        save_half(model, "activations", tmp_path / "half")
        assert read_config(str(tmp_path / "half")).strength == 3
    other = attach(fresh(), SteeringConfig(adapter=Vector(), task_type="CAUSAL_LM"))
    if not joint:
        with pytest.raises(ActshiftError, match="another adapter than the attached one"):
            other.load_adapter(str(tmp_path / "a"), "default")
    model.set_strength(1)
    assert not torch.equal(run(model, "llama"), expected)


def test_strength_scales_the_shift_linearly(base):
    model = attach(base, SteeringConfig(adapter=Vector(), layers=[-1]))
    randomise(model)
    block, seen = base.model.layers[-1], []
    block.register_forward_hook(lambda module, args, output: seen.append(output))
    for s in (0, 1, 2, -0.5):
        with strength(model, s):
            run(model, "llama")
    zero, one, two, back = seen
    torch.testing.assert_close(two - zero, 2 * (one - zero))
    torch.testing.assert_close(back - zero, -0.5 * (one - zero))


def test_strength_refusals(two, base_folder):
    for bad in (float("nan"), float("inf"), "1", None, True):
        with pytest.raises(ActshiftError, match="strength must be a finite number"):
            set_strength(two, bad)
    with pytest.raises(ActshiftError, match="There is no steering adapter 'third'; there are first, second"):
        two.set_strength(1, "third")
    with pytest.raises(ActshiftError, match="carries no steering adapter"):
        set_strength(AutoModelForCausalLM.from_pretrained(base_folder), 1)


def test_groups_of_a_joint_model_contain_every_trainable_parameter() -> None:
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2))
    activations, weights = parameter_groups(model, 1e-2, 1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert (activations["lr"], weights["lr"]) == (1e-2, 1e-4)
    assert all("lora_steer" in names[id(parameter)] for parameter in activations["params"])
    assert all("lora_steer" not in names[id(parameter)] for parameter in weights["params"])
    assert len(activations["params"]) + len(weights["params"]) == len(names)


def test_both_groups_use_one_rate_by_default() -> None:
    groups = parameter_groups(attach(ARCHITECTURES["llama"](), JointConfig(r=2)), 1e-2)
    assert [group["lr"] for group in groups] == [1e-2, 1e-2]


def test_empty_group_is_left_out() -> None:
    [group] = parameter_groups(lora_model(ARCHITECTURES["llama"](), r=2), 1e-2, 1e-4)
    assert (group["name"], group["lr"]) == ("weights", 1e-4)


def test_groups_work_with_an_optimiser() -> None:
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2))
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-2, 1e-4), lr=1)
    ids = torch.tensor([[1, 5, 6, 7]])
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-4]


def test_groups_without_trainable_parameters_are_refused() -> None:
    with pytest.raises(ActshiftError, match="No parameter of LlamaForCausalLM requires gradients"):
        parameter_groups(ARCHITECTURES["llama"]().requires_grad_(False), 1e-2)
