"""`look` runs all analyses, and restores the model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, JointConfig, SteeringConfig, attach
from actshift.analysis.report import run_analyses
from tests.analysis.twins import moved
from tests.contract.cases import randomise
from tests.tiny import save_adapter
from tests.zoo import ARCHITECTURES, example_inputs


def batches() -> list[dict[str, torch.Tensor]]:
    inputs = [example_inputs("llama", 3, 9, seed) for seed in range(3)]
    return [{**batch, "labels": batch["input_ids"]} for batch in inputs]


@pytest.fixture
def joint(tmp_path) -> str:
    base = tmp_path / "base"
    ARCHITECTURES["llama"]().save_pretrained(base)
    config = JointConfig(r=2, steering=SteeringConfig(rank=2), target_modules=["down_proj"])
    model = attach(AutoModelForCausalLM.from_pretrained(base), config)
    randomise(model)
    model.save_pretrained(str(tmp_path / "joint"))
    return str(tmp_path / "joint")


def test_all_analyses_run_and_the_model_is_restored(joint):
    model = ARCHITECTURES["llama"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    progress = []
    findings = run_analyses(model, batches(), 2, moved(model), joint, 2, lambda *step: progress.append(step))
    assert findings.equivalence and findings.oracle and findings.redundancy
    assert findings.locate.rank == findings.oracle.nonlinear_rank == findings.equivalence.ranks[-1] == 2
    assert {phase: done == total for phase, done, total in progress} == {
        "Backward passes": True,
        "The oracle": True,
        "The update": True,
    }
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert [type(module) for module in model.modules()] == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_alone_is_only_located():
    findings = run_analyses(ARCHITECTURES["llama"](), batches(), 2)
    assert (findings.equivalence, findings.oracle, findings.redundancy) == (None, None, None)
    assert findings.to_dict().keys() == {"locate"}


def test_invalid_inputs_are_refused_before_the_measurement(monkeypatch, joint, tmp_path):
    from actshift.analysis import report

    monkeypatch.setattr(report, "locate", lambda *args, **kwargs: pytest.fail("locate was called"))
    model = ARCHITECTURES["llama"]()
    with pytest.raises(ActshiftError, match="the same weights"):
        run_analyses(model, batches(), 2, ARCHITECTURES["llama"]())
    with pytest.raises(ActshiftError, match=r"(?i)rank 33 is above"):
        run_analyses(model, batches(), 33)
    one_row = [{name: value[:1] for name, value in batches()[0].items()}]
    with pytest.raises(ActshiftError, match="2 rows"):
        run_analyses(model, one_row, 2, moved(model))
    steering = save_adapter(tmp_path / "steering", tmp_path / "base", rank=2)
    with pytest.raises(ActshiftError, match="no joint adapter"):
        run_analyses(model, batches(), 2, joint=str(steering))
    assert not hasattr(model, "peft_config")
