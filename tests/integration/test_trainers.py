"""Training loops of other libraries, with only our config."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from actshift import SteeringConfig
from tests.contract.cases import fresh_model, run
from tests.zoo import VOCAB


def rows(count: int = 32, seq: int = 8) -> list[dict[str, torch.Tensor]]:
    """Sequences that repeat a token, which are easy to learn."""
    starts = torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids, "labels": ids} for ids in (start.repeat(seq) for start in starts)]


def arguments(folder, **changes) -> TrainingArguments:
    defaults = dict(
        output_dir=str(folder), max_steps=16, per_device_train_batch_size=4, learning_rate=3e-2, save_steps=8,
        logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, seed=1,
    )  # fmt: skip
    return TrainingArguments(**{**defaults, **changes})


@torch.no_grad()
def mean_loss(model) -> float:
    """Return the mean loss over all rows; the loss of one step is too noisy."""
    batch = {name: torch.stack([row[name] for row in rows()]) for name in ("input_ids", "labels")}
    return model.eval()(**batch).loss.item()


def steered() -> PeftModel:
    torch.manual_seed(5)
    return get_peft_model(fresh_model("llama"), SteeringConfig(rank=4, task_type="CAUSAL_LM"))


@pytest.mark.slow
def test_hf_trainer_learns_and_resumes_bit_identically(tmp_path):
    whole = Trainer(steered(), arguments(tmp_path / "whole"), train_dataset=rows())
    whole.train()
    assert mean_loss(whole.model) < 0.95 * mean_loss(steered())

    second = Trainer(steered(), arguments(tmp_path / "halves"), train_dataset=rows())
    second.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    for (name, expected), (_, resumed) in zip(
        whole.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(expected, resumed), name

    saved = PeftModel.from_pretrained(fresh_model("llama"), str(tmp_path / "whole" / "checkpoint-16"))
    assert torch.equal(run(saved.eval(), "llama"), run(whole.model.eval(), "llama"))


@pytest.mark.slow
def test_gradient_accumulation_equals_a_large_batch(tmp_path):
    trained = []
    for name, changes in (
        ("large", dict(per_device_train_batch_size=8)),
        ("small", dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)),
    ):
        trainer = Trainer(steered(), arguments(tmp_path / name, max_steps=2, **changes), train_dataset=rows())
        trainer.train()
        trained.append([p for p in trainer.model.parameters() if p.requires_grad])
    for large, small in zip(*trained, strict=True):
        torch.testing.assert_close(large, small, atol=1e-5, rtol=1e-4)


def test_an_accelerate_loop_lowers_the_loss():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = steered()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batches = torch.utils.data.DataLoader(rows(), batch_size=4)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    before = mean_loss(model)
    for _ in range(6):
        for batch in batches:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    assert mean_loss(model) < 0.95 * before


def test_trl_trains_and_saves_from_the_config(tmp_path, word_tokenizer):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"prompt": f"a{i % 5}", "completion": f" b{i % 5}"} for i in range(32)])
    trainer = trl.SFTTrainer(
        fresh_model("llama"),
        args=trl.SFTConfig(**arguments(tmp_path).to_dict() | {"max_length": 16, "save_strategy": "no"}),
        train_dataset=data,
        processing_class=word_tokenizer,
        peft_config=SteeringConfig(rank=4, task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = PeftModel.from_pretrained(fresh_model("llama"), str(tmp_path / "saved"))
    assert torch.equal(run(loaded.eval(), "llama"), run(trainer.model.eval(), "llama"))
