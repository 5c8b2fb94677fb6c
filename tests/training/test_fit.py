from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from actshift import ActshiftError, SteeringConfig, attach
from actshift.training import TrainSettings, fit
from tests.characters import char_tokenizer, sums
from tests.zoo import ARCHITECTURES

ROWS = Dataset.from_list(sums(40))
SETTINGS = TrainSettings(max_steps=20, batch_size=8, gradient_accumulation=1, learning_rate=1e-2)


def steered():
    torch.manual_seed(0)
    return attach(ARCHITECTURES["llama"](), SteeringConfig(rank=4, task_type="CAUSAL_LM"))


def trainable(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if tensor.requires_grad}


def test_learns_and_leaves_no_trace_but_the_weights():
    model = steered()
    frozen = {name: tensor.clone() for name, tensor in model.named_parameters() if not tensor.requires_grad}
    config, tokenizer = model.config.to_dict(), char_tokenizer()
    tokenizer.pad_token = None
    first = fit(model, tokenizer, ROWS, replace(SETTINGS, max_steps=1))
    last = fit(model, tokenizer, ROWS, SETTINGS)
    assert last.train_loss < first.train_loss - 0.3
    assert all(torch.equal(tensor, dict(model.named_parameters())[name]) for name, tensor in frozen.items())
    assert not model.training and model.config.to_dict() == config and tokenizer.pad_token is None
    pickle.dumps(model)
    assert (last.steps, last.best_step, last.rows, last.left_out, last.eval_loss) == (20, 20, 40, 0, None)
    assert last.trainable == sum(tensor.numel() for tensor in trainable(model).values())
    assert last.share == last.trainable / sum(tensor.numel() for tensor in model.parameters())


def test_trains_a_whole_model():
    model = ARCHITECTURES["llama"]()
    before = trainable(model)
    result = fit(model, char_tokenizer(), ROWS, replace(SETTINGS, learning_rate=1e-3))
    assert result.trainable == result.parameters
    assert all(not torch.equal(tensor, before[name]) for name, tensor in trainable(model).items())


def test_keeps_the_state_of_lowest_evaluation_loss():
    unlike = Dataset.from_list([{"prompt": row["prompt"], "completion": "zzzzzzzz"} for row in sums(8)])
    model = steered()
    result = fit(model, char_tokenizer(), ROWS, replace(SETTINGS, save_steps=1), eval_rows=unlike)
    assert result.best_step < 20
    again = fit(model, char_tokenizer(), unlike, replace(SETTINGS, max_steps=1))
    assert again.train_loss == pytest.approx(result.eval_loss)  # a first step's loss is before its update


@pytest.mark.slow
def test_gradient_checkpointing_and_accumulation_change_nothing_but_memory():
    results = []
    for change in ({}, {"gradient_checkpointing": True}, {"batch_size": 4, "gradient_accumulation": 2}):
        model = steered()
        fit(model, char_tokenizer(), ROWS, replace(SETTINGS, max_steps=3, **change))
        results.append(trainable(model))
    for other in results[1:]:
        for name, tensor in results[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run():
    model = steered()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(ActshiftError, match="loss became nan at step 1; restart with a lower learning_rate"):
        fit(model, char_tokenizer(), ROWS, SETTINGS)


def test_nothing_to_train_is_said():
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    with pytest.raises(ActshiftError, match="No parameter of LlamaForCausalLM requires gradients"):
        fit(model, char_tokenizer(), ROWS, SETTINGS)


def test_progress_is_lines_where_there_is_no_terminal(capsys):
    fit(steered(), char_tokenizer(), ROWS, replace(SETTINGS, max_steps=4), title="Steering")
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("Steering")]
    assert not out and len(lines) == 4
    assert all(word in lines[-1] for word in ("4/4", "loss ", "lr ", "0:00 left"))


@pytest.mark.parametrize(
    "rows, batch, accumulation, epochs", [(40, 8, 2, 1), (33, 8, 2, 1.5), (3, 8, 2, 2), (50, 7, 3, 1)]
)
def test_steps_are_those_the_trainer_would_take(tmp_path, rows, batch, accumulation, epochs):
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
        report_to="none",
    )
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=[{"input": [0.0]}] * rows)
    expected = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())[-1]
    assert (
        TrainSettings(batch_size=batch, gradient_accumulation=accumulation, epochs=epochs).total_steps(rows) == expected
    )
