"""Measuring all of it, on a model that is left as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, JointConfig, SteeringConfig, attach
from actshift.analysis.report import look
from tests.analysis.twins import moved
from tests.contract.cases import randomise
from tests.tiny import save_adapter
from tests.zoo import ARCHITECTURES, example_inputs


def batches() -> list[dict[str, torch.Tensor]]:
    made = [example_inputs("llama", 3, 9, seed) for seed in range(3)]
    return [{**one, "labels": one["input_ids"]} for one in made]


@pytest.fixture
def joint(tmp_path) -> str:
    base = tmp_path / "base"
    ARCHITECTURES["llama"]().save_pretrained(base)
    config = JointConfig(r=2, steering=SteeringConfig(rank=2), target_modules=["down_proj"])
    model = attach(AutoModelForCausalLM.from_pretrained(base), config)
    randomise(model)
    model.save_pretrained(str(tmp_path / "joint"))
    return str(tmp_path / "joint")


def test_all_is_found_and_the_model_is_left_as_it_was(joint):
    model = ARCHITECTURES["llama"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    heard = []
    found = look(model, batches(), 2, moved(model), joint, 2, lambda *told: heard.append(told))
    assert found.equivalence and found.oracle and found.redundancy
    assert found.locate.rank == found.oracle.nonlinear_rank == found.equivalence.ranks[-1] == 2
    assert {phase: done == total for phase, done, total in heard} == {
        "Backward passes": True,
        "The oracle": True,
        "The update": True,
    }
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert [type(module) for module in model.modules()] == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_alone_has_its_places():
    found = look(ARCHITECTURES["llama"](), batches(), 2)
    assert (found.equivalence, found.oracle, found.redundancy) == (None, None, None)
    assert found.to_dict().keys() == {"locate"}


def test_what_cannot_be_is_said_before_anything_is_measured(monkeypatch, joint, tmp_path):
    from actshift.analysis import report as findings

    monkeypatch.setattr(findings, "locate", lambda *args, **kwargs: pytest.fail("it was measured"))
    model = ARCHITECTURES["llama"]()
    with pytest.raises(ActshiftError, match="the same weights"):
        look(model, batches(), 2, ARCHITECTURES["llama"]())
    with pytest.raises(ActshiftError, match="rank 33 is above"):
        look(model, batches(), 33)
    one_row = [{name: value[:1] for name, value in batches()[0].items()}]
    with pytest.raises(ActshiftError, match="2 rows"):
        look(model, one_row, 2, moved(model))
    steering = save_adapter(tmp_path / "steering", tmp_path / "base", rank=2)
    with pytest.raises(ActshiftError, match="no joint adapter"):
        look(model, batches(), 2, joint=str(steering))
    assert not hasattr(model, "peft_config")
