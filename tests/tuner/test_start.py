from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, JointConfig, LowRank, Positions, SteeringConfig, Vector, attach
from actshift.tuner.loading import start_from
from tests.contract.cases import fresh_model, randomise
from tests.zoo import LAYERS

LAST = LAYERS - 1


def tensors(model, part: str = "lora_") -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if part in name}


@pytest.fixture
def saved(tmp_path):
    """Save a trained-looking adapter, and return its folder and its tensors."""

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
def test_a_fresh_adapter_begins_at_the_saved_one(saved, config):
    folder, wanted = saved(config)
    model = attach(fresh_model("llama"), config)
    assert len(start_from(model, folder)) == len(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in tensors(model).items())
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_blocks_that_the_saved_one_does_not_steer_stay_as_they_were(saved):
    folder, wanted = saved(SteeringConfig(adapter=Vector(), layers=[1]))
    model = attach(fresh_model("llama"), SteeringConfig(adapter=Vector(), positions=Positions.prompt()))
    [name] = start_from(model, folder)
    assert ".1." in name
    found = tensors(model)
    assert sum(bool(value.any()) for value in found.values()) == 1
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_how_it_began_is_no_difference(saved):
    folder, _ = saved(SteeringConfig(rank=2, init="reference"))
    start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), folder)


def test_one_adapter_of_several(saved):
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
def test_what_does_not_fit_is_refused_and_nothing_is_copied(saved, config, line):
    folder, _ = saved(SteeringConfig(adapter=Vector(), layers=[LAST]))
    model = attach(fresh_model("llama"), config)
    before = tensors(model)
    with pytest.raises(ActshiftError, match=line):
        start_from(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())


def test_another_activation_is_another_adapter(saved):
    folder, _ = saved(SteeringConfig(adapter=LowRank(rank=2, activation=None)))
    with pytest.raises(ActshiftError, match="use the same adapter for both"):
        start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), folder)


def test_a_model_without_an_adapter_and_a_folder_without_one(saved, tmp_path):
    with pytest.raises(ActshiftError, match="has no adapter 'default' to start from"):
        start_from(fresh_model("llama"), str(tmp_path))
    with pytest.raises(ActshiftError, match="is not an adapter"):
        start_from(attach(fresh_model("llama"), SteeringConfig(rank=2)), str(tmp_path))
