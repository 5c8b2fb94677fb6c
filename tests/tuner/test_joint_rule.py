"""The orthogonality rule in files saved by common training loops and trainers."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Adafactor, Trainer

from actshift import JointConfig, Orthogonality, SteeringConfig, enforce, load_adapter, orthogonality_violations
from actshift.errors import ActshiftError
from actshift.sites import mlp_outputs
from tests.contract.cases import fresh_model
from tests.integration.test_trainers import arguments, rows
from tests.tiny import word_tokenizer
from tests.zoo import CAUSAL, example_inputs

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, 1e-1),
    "adafactor": lambda p: Adafactor(p, 1e-2, relative_step=False, scale_parameter=False),
}


RULE = Orthogonality()


def joint(name: str = "llama", dtype=torch.float32, rule: Orthogonality | None = RULE, **fields) -> PeftModel:
    torch.manual_seed(5)
    config = JointConfig(r=3, steering=SteeringConfig(rank=4), orthogonality=rule, task_type="CAUSAL_LM", **fields)
    return get_peft_model(fresh_model(name).to(dtype), config, autocast_adapter_dtype=False)


def train(model, optimizer=OPTIMIZERS["adamw"], steps: int = 3) -> None:
    optimizer = optimizer([p for p in model.parameters() if p.requires_grad])
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = example_inputs("llama")
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()


def saved_figure(folder: Path, dtype=torch.float32) -> float:
    """Return the largest ‖w Q‖ / ‖w‖ over the rows of every W_down; Q is from the SVD of that block's B, in float64."""
    tensors = load_file(folder / "adapter_model.safetensors")
    figures = []
    for name, tensor in tensors.items():
        if name.endswith("lora_steer.down.weight"):
            block = name.partition(".actshift")[0]
            columns = tensors[f"{block}.mlp.down_proj.lora_B.weight"].double().numpy()
            assert columns.any()
            left, *_ = np.linalg.svd(columns, full_matrices=False)
            row = tensor.double().numpy()
            figures.append((np.linalg.norm(row @ left, axis=1) / np.linalg.norm(row, axis=1)).max())
    assert len(figures) == 3
    assert all(tensor.dtype == dtype for tensor in tensors.values())
    return max(figures)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_bare_training_loop_saves_orthogonal_weights(tmp_path, optimizer, dtype, bound):
    model = joint(dtype=dtype)
    train(model, OPTIMIZERS[optimizer])
    model.save_pretrained(tmp_path)
    assert saved_figure(tmp_path, dtype) <= bound
    loaded = load_adapter(fresh_model("llama").to(dtype), str(tmp_path))
    assert 0 < max(orthogonality_violations(loaded).values()) <= bound


def test_training_without_the_rule_violates_it(tmp_path):
    model = joint(rule=None)
    train(model)
    model.save_pretrained(tmp_path)
    assert saved_figure(tmp_path) > 1e-2
    assert max(orthogonality_violations(model).values()) == pytest.approx(saved_figure(tmp_path), rel=1e-6)
    with pytest.raises(ActshiftError, match="has no orthogonality rule"):
        enforce(model)


@pytest.mark.slow
def test_transformers_trainer_with_accumulation_and_resume(tmp_path):
    settings = dict(gradient_accumulation_steps=4, per_device_train_batch_size=2, max_steps=4, save_steps=2)
    whole = Trainer(joint(), arguments(tmp_path / "whole", **settings), train_dataset=rows())
    whole.train()
    for step in (2, 4):
        assert saved_figure(tmp_path / "whole" / f"checkpoint-{step}") <= 1e-5

    second = Trainer(joint(), arguments(tmp_path / "halves", **settings), train_dataset=rows())
    second.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for (name, parameter), (_, resumed) in zip(
        whole.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, resumed), name


@pytest.mark.slow
def test_trl_sft_trainer(tmp_path):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"prompt": f"w{i % 5}", "completion": f" w{9 - i % 5}"} for i in range(32)])
    trainer = trl.SFTTrainer(
        fresh_model("llama"),
        args=trl.SFTConfig(**arguments(tmp_path / "run", max_steps=8).to_dict() | {"max_length": 16}),
        train_dataset=data,
        processing_class=word_tokenizer(pad_token="<pad>"),
        peft_config=JointConfig(r=3, steering=SteeringConfig(rank=4), task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert saved_figure(tmp_path / "saved") <= 1e-5
    assert saved_figure(tmp_path / "run" / "checkpoint-8") <= 1e-5


def test_accelerate_with_accumulation(tmp_path):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = joint()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model, optimizer, batches = accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(rows(), batch_size=4))
    for batch in batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    accelerator.unwrap_model(model).save_pretrained(tmp_path)
    assert saved_figure(tmp_path) <= 1e-5


@pytest.mark.parametrize("name", CAUSAL)
def test_rule_holds_on_every_architecture(name):
    base = fresh_model(name)
    experts = sorted({output.name for output in mlp_outputs(base) if output.parameter})
    model = joint(name, **(dict(target_parameters=experts) if experts else {}))
    down = {key: p.clone() for key, p in model.named_parameters() if "lora_steer" in key and "down" in key}
    train(model)
    figures = orthogonality_violations(model)
    assert len(figures) == len(down) == 3
    assert max(figures.values()) <= 1e-5
    after = dict(model.named_parameters())
    assert all(after[key].any() and not torch.equal(after[key], before) for key, before in down.items())


def test_rule_holds_with_different_ranks():
    model = joint(rank_pattern={"layers.1.mlp.down_proj": 7})
    train(model)
    assert max(orthogonality_violations(model).values()) <= 1e-5


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_constrained_by_its_own_lora(clone):
    model = joint()
    train(model)
    twin = clone(model)
    before = copy.deepcopy(model.state_dict())
    train(twin)
    assert max(orthogonality_violations(twin).values()) <= 1e-5
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_training_a_second_adapter_leaves_the_first_unchanged():
    model = joint(dtype=torch.bfloat16)
    train(model)
    before = {name: p.clone() for name, p in model.named_parameters() if "default" in name}
    model.add_adapter("second", JointConfig(r=3, steering=SteeringConfig(rank=4)), autocast_adapter_dtype=False)
    model.set_adapter("second")
    train(model)
    for name, parameter in model.named_parameters():
        assert "default" not in name or torch.equal(parameter, before[name]), name
    assert max(orthogonality_violations(model).values()) <= 1e-2


def test_enforce_projects_under_a_rule_of_epochs():
    model = joint(rule=Orthogonality(every="epoch"))
    train(model)
    assert max(orthogonality_violations(model).values()) > 1e-2
    enforce(model, "default")
    assert max(orthogonality_violations(model).values()) <= 1e-6
    with pytest.raises(ActshiftError, match="'other' has no orthogonality rule"):
        enforce(model, "other")
