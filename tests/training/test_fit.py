from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from actshift import ActshiftError, SteeringConfig, attach
from actshift.training import TrainSettings, fit
from actshift.training.fit import warn_of_unknown_end
from tests.characters import char_tokenizer, sums
from tests.zoo import ARCHITECTURES

ROWS = Dataset.from_list(sums(40))
SETTINGS = TrainSettings(max_steps=20, batch_size=8, gradient_accumulation=1, learning_rate=1e-2)


def steered():
    torch.manual_seed(0)
    return attach(ARCHITECTURES["llama"](), SteeringConfig(rank=4, task_type="CAUSAL_LM"))


def trainable(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if tensor.requires_grad}


def test_fit_lowers_the_loss_and_changes_only_trained_weights():
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


def test_fit_trains_a_whole_model():
    model = ARCHITECTURES["llama"]()
    before = trainable(model)
    result = fit(model, char_tokenizer(), ROWS, replace(SETTINGS, learning_rate=1e-3))
    assert result.trainable == result.parameters
    assert all(not torch.equal(tensor, before[name]) for name, tensor in trainable(model).items())


def test_fit_keeps_the_state_with_the_lowest_evaluation_loss():
    unlike = Dataset.from_list([{"prompt": row["prompt"], "completion": "zzzzzzzz"} for row in sums(8)])
    model = steered()
    result = fit(model, char_tokenizer(), ROWS, replace(SETTINGS, save_steps=1), eval_rows=unlike)
    assert result.best_step < 20
    again = fit(model, char_tokenizer(), unlike, replace(SETTINGS, max_steps=1))
    assert again.train_loss == pytest.approx(result.eval_loss)  # a first step's loss is before its update


@pytest.mark.slow
def test_gradient_checkpointing_and_accumulation_give_the_same_weights():
    results = []
    for change in ({}, {"gradient_checkpointing": True}, {"batch_size": 4, "gradient_accumulation": 2}):
        model = steered()
        fit(model, char_tokenizer(), ROWS, replace(SETTINGS, max_steps=3, **change))
        results.append(trainable(model))
    for other in results[1:]:
        for name, tensor in results[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


def test_nan_loss_stops_the_run():
    model = steered()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(ActshiftError, match="loss became nan at step 1; restart with a lower learning_rate"):
        fit(model, char_tokenizer(), ROWS, SETTINGS)


def test_model_without_trainable_parameters_raises():
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    with pytest.raises(ActshiftError, match="No parameter of LlamaForCausalLM requires gradients"):
        fit(model, char_tokenizer(), ROWS, SETTINGS)


def test_progress_prints_lines_without_a_terminal(capsys):
    fit(steered(), char_tokenizer(), ROWS, replace(SETTINGS, max_steps=4), title="Steering")
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("Steering")]
    assert not out and len(lines) == 4
    assert all(word in lines[-1] for word in ("4/4", "loss ", "lr ", "0:00 left"))


@pytest.mark.parametrize(
    "rows, batch, accumulation, epochs", [(40, 8, 2, 1), (33, 8, 2, 1.5), (3, 8, 2, 2), (50, 7, 3, 1)]
)
def test_total_steps_equals_the_trainers_own_count(tmp_path, rows, batch, accumulation, epochs):
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


@pytest.fixture
def frozen():
    return ARCHITECTURES["llama"]().requires_grad_(False)


def test_end_token_with_a_shared_embedding_warns(frozen):
    rows = frozen.get_output_embeddings().weight
    with torch.no_grad():
        rows[[60, 70]] = rows[2] * 1.0001
    with pytest.warns(UserWarning, match="cannot distinguish its end-of-text token '</s>' from 2 others"):
        warn_of_unknown_end(frozen, char_tokenizer())
    rows.requires_grad_(True)  # training can separate the embeddings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_end(frozen, char_tokenizer())


def test_end_token_with_its_own_embedding_does_not_warn(frozen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_end(frozen, char_tokenizer())
