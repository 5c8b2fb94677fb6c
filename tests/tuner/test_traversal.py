"""Hidden adapters are invisible to functions that traverse the model, but still steer it."""

from __future__ import annotations

import pytest
import torch

from actshift import Positions, SteeringConfig, attach
from actshift.tuner import steering_layers
from actshift.tuner.traversal import hide_other_adapters
from tests.contract.cases import fresh_model, randomise

IDS = torch.randint(3, 90, (2, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first")
    model.add_adapter("second", SteeringConfig(rank=2))
    randomise(model)
    return model.eval()


def visible_adapters(model) -> set[str]:
    return {name.split(".")[-3] for name in model.state_dict() if "lora_steer" in name}


@torch.no_grad()
def test_a_hidden_adapter_still_steers(model):
    before = model(IDS).logits
    with hide_other_adapters(model, "second"):
        assert visible_adapters(model) == {"second"}
        torch.testing.assert_close(model(IDS).logits, before)
        with hide_other_adapters(model, "second"):
            assert visible_adapters(model) == {"second"}
        assert visible_adapters(model) == {"second"}
    assert visible_adapters(model) == {"first", "second"}


def test_adapters_are_restored_in_order_after_an_error(model):
    before = list(model.state_dict())
    with pytest.raises(RuntimeError), hide_other_adapters(model, "first"):
        raise RuntimeError
    assert list(model.state_dict()) == before


def test_a_new_adapter_leaves_the_others_unchanged(model):
    model.set_adapter("first", inference_mode=True)
    [layer, *_] = steering_layers(model).values()
    layer.lora_steer["second"].up.weight.requires_grad_(True)  # without telling the tuner
    before = {name: (p, p.requires_grad) for name, p in model.named_parameters()}
    model.add_adapter("third", SteeringConfig(rank=3))
    after = dict(model.named_parameters())
    assert all(after[name] is p and p.requires_grad is trains for name, (p, trains) in before.items())
    assert not any(p.requires_grad for name, p in after.items() if ".third." in name)


def test_loading_into_an_eval_model_puts_every_adapter_into_eval(model, tmp_path):
    model.save_pretrained(tmp_path, selected_adapters=["second"])
    model.train()
    model.load_adapter(str(tmp_path / "second"), "third")
    assert not any(module.training for module in model.modules())


def test_another_adapter_replaces_a_deleted_active_one_and_trains(model):
    with pytest.warns(UserWarning, match="was active"):
        model.delete_adapter("first")
    assert visible_adapters(model) == {"second"} and model.active_adapters == ["second"]
    assert all(p.requires_grad == ("lora_steer" in name) for name, p in model.named_parameters())
    model(IDS).logits.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_steer" in name)


def test_set_requires_grad_changes_inactive_adapters(model):
    model.base_model.set_requires_grad("second")
    assert all(p.requires_grad == ("lora_steer" in name) for name, p in model.named_parameters())
    model.base_model.set_requires_grad(["first", "second"], False)
    assert not any(p.requires_grad for p in model.parameters())


def test_prompt_scopes_are_installed_with_the_first_adapter_that_has_positions(model):
    assert all(layer.prompts is None for layer in steering_layers(model).values())
    model.add_adapter("third", SteeringConfig(rank=2, positions=Positions.prompt()))
    assert all(layer.prompts is not None for layer in steering_layers(model).values())
