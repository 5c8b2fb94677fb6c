from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, JointConfig, attach
from actshift.tuner import parameter_groups
from actshift.tuner.loading import lora_model
from tests.zoo import ARCHITECTURES


def test_a_joint_model_has_two_halves_that_hold_all_that_is_trained() -> None:
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2))
    activations, weights = parameter_groups(model, 1e-2, 1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert (activations["lr"], weights["lr"]) == (1e-2, 1e-4)
    assert all("lora_steer" in names[id(parameter)] for parameter in activations["params"])
    assert all("lora_steer" not in names[id(parameter)] for parameter in weights["params"])
    assert len(activations["params"]) + len(weights["params"]) == len(names)


def test_without_a_rate_of_its_own_lora_takes_the_other() -> None:
    groups = parameter_groups(attach(ARCHITECTURES["llama"](), JointConfig(r=2)), 1e-2)
    assert [group["lr"] for group in groups] == [1e-2, 1e-2]


def test_a_half_that_is_not_there_is_left_out() -> None:
    [group] = parameter_groups(lora_model(ARCHITECTURES["llama"](), r=2), 1e-2, 1e-4)
    assert (group["name"], group["lr"]) == ("weights", 1e-4)


def test_any_optimiser_takes_them() -> None:
    model = attach(ARCHITECTURES["llama"](), JointConfig(r=2))
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-2, 1e-4), lr=1)
    ids = torch.tensor([[1, 5, 6, 7]])
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-4]


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(ActshiftError, match="No parameter of LlamaForCausalLM requires gradients"):
        parameter_groups(ARCHITECTURES["llama"]().requires_grad_(False), 1e-2)
