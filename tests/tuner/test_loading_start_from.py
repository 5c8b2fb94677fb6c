"""Start an adapter from the weights of a saved one."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, JointConfig, LowRank, Positions, SteeringConfig, Vector, attach
from actshift.tuner import steering_layers
from actshift.tuner.loading import start_from
from tests.contract.cases import fresh_model, randomise
from tests.zoo import LAYERS

LAST = LAYERS - 1


def tensors(model, part: str = "lora_") -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if part in name}


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves an adapter with random weights, and returns its folder and tensors."""

    def save(config: SteeringConfig) -> tuple[str, dict[str, torch.Tensor]]:
        model = attach(fresh_model("llama"), config)
        randomise(model)
        model.save_pretrained(str(tmp_path))
        return str(tmp_path), tensors(model)

    return save


@pytest.mark.parametrize(
    "config",
    [SteeringConfig(adapter=Vector()), SteeringConfig(rank=2), JointConfig(r=2, steering=SteeringConfig(rank=2))],
    ids=["vector", "low rank", "joint"],
)
def test_fresh_adapter_gets_the_saved_weights(saved, config):
    folder, expected = saved(config)
    model = attach(fresh_model("llama"), config)
    assert len(start_from(model, folder)) == len(expected)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(model).items())
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_other_blocks_keep_their_weights(saved):
    folder, expected = saved(SteeringConfig(adapter=Vector(), layers=[1]))
    model = attach(fresh_model("llama"), SteeringConfig(adapter=Vector(), positions=Positions.prompt()))
    [name] = start_from(model, folder)
    assert ".1." in name
    actual = tensors(model)
    assert sum(bool(value.any()) for value in actual.values()) == 1
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_the_saved_strength_is_copied(saved):
    folder, _ = saved(SteeringConfig(adapter=Vector(), strength=4))
    model = attach(fresh_model("llama"), SteeringConfig(adapter=Vector()))
    start_from(model, folder)
    assert {layer.strength["default"] for layer in steering_layers(model).values()} == {4}
    assert model.peft_config["default"].strength == 4


def test_adapters_that_differ_in_init_fit(saved):
    folder, _ = saved(SteeringConfig(rank=2, init="reference"))
    start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), folder)


def test_only_the_named_adapter_is_changed(saved):
    folder, _ = saved(SteeringConfig(adapter=Vector()))
    model = attach(fresh_model("llama"), SteeringConfig(adapter=Vector()))
    attach(model, SteeringConfig(adapter=Vector()), "second")
    start_from(model, folder, "second")
    assert not any(value.any() for value in tensors(model, "lora_steer.default").values())
    assert all(value.any() for value in tensors(model, "lora_steer.second").values())


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (SteeringConfig(rank=2), r"the saved one is Vector\(\), and this one is LowRank\(rank=2"),
        (SteeringConfig(adapter=Vector(), layers=[0]), f"the file holds model.layers.{LAST}.*has none of that name"),
        (SteeringConfig(adapter=Vector(), site="post_mlp"), "steer at least the same blocks, at the same site"),
    ],
)
def test_saved_adapter_that_does_not_fit_is_refused_and_nothing_is_copied(saved, config, line):
    folder, _ = saved(SteeringConfig(adapter=Vector(), layers=[LAST]))
    model = attach(fresh_model("llama"), config)
    before = tensors(model)
    with pytest.raises(ActshiftError, match=line):
        start_from(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())


def test_adapter_with_another_activation_is_refused(saved):
    folder, _ = saved(SteeringConfig(adapter=LowRank(rank=2, activation=None)))
    with pytest.raises(ActshiftError, match="use the same adapter for both"):
        start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), folder)


def test_missing_adapters_in_model_and_folder_are_refused(saved, tmp_path):
    with pytest.raises(ActshiftError, match="has no adapter 'default' to start from"):
        start_from(fresh_model("llama"), str(tmp_path))
    with pytest.raises(ActshiftError, match="is not an adapter"):
        start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), str(tmp_path))
