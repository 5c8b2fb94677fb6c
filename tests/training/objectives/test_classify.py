"""Classification, tagging and vectors: trained, saved with the head, read back, scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification

from actshift import ActshiftError
from actshift.cli.models import load_steered
from actshift.data import LABELLED, load_rows
from actshift.evaluation import evaluate
from actshift.training import TrainSettings, train
from tests.encoders import classed, paired, save_encoder, tagged, write

ROWS = {"classify": classed, "tag": tagged, "embed": paired}
RATES = {"steering": 5e-3, "lora": 5e-3, "joint": 1e-2, "full": 3e-3}
LEAST = {"classify": 0.8, "tag": 0.8, "embed": 1 / 60}
"""The accuracy that every method must exceed: for pairs that of chance."""
WORST = {"classify": 0.5, "tag": 0.5, "embed": 2.9}
"""The loss that every method must fall below: for pairs log 20, which is a guess among the rows of a batch."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def settings(encoder, tmp_path) -> TrainSettings:
    rows = write(tmp_path / "rows.jsonl", classed(30))
    return TrainSettings(model=str(encoder), data=str(rows), out=str(tmp_path / "run"), max_steps=2, batch_size=4)


def _load(settings: TrainSettings):
    whole = settings.method == "full"
    return load_steered(settings.out if whole else None, [] if whole else [str(settings.out)], 1.0, False)[:2]


@torch.no_grad()
def _scores(model) -> torch.Tensor:
    output = model(input_ids=torch.tensor([[5, 60, 7]]))
    return output.logits if "logits" in output else output.last_hidden_state


@pytest.mark.slow
@pytest.mark.parametrize("method", RATES)
@pytest.mark.parametrize("objective", ROWS)
def test_trained_encoder_is_accurate_after_loading(objective, method, encoder, tmp_path):
    rows = write(tmp_path / "rows.jsonl", ROWS[objective](400))
    settings = TrainSettings(
        model=str(encoder), data=str(rows), out=str(tmp_path / "run"), method=method, learning_rate=RATES[method],
        batch_size=20, gradient_accumulation=1, epochs=8, eval_share=0.1,
    )  # fmt: skip
    result = train(settings)
    model, tokenizer = _load(settings)
    test = load_rows(str(write(tmp_path / "test.jsonl", ROWS[objective](60, seed=1))), kinds=LABELLED)
    report = evaluate(model, tokenizer, test)
    assert report.accuracy > LEAST[objective]
    assert result.fit.eval_loss < WORST[objective]
    assert torch.equal(_scores(_load(settings)[0]), _scores(model))


def test_head_is_saved_with_class_names_and_the_loss_is_a_mean(settings):
    result = train(settings)
    assert result.head.labels == ("dull", "fine")
    assert result.fit.train_loss < 1.5  # of two classes at the start log 2 and a bit, not the sum over accumulation
    model, _ = _load(settings)
    assert model.config.id2label == {0: "dull", 1: "fine"}
    card = Path(str(settings.out), "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "Its head classifies into dull, fine." in card
    shown = AutoPeftModelForSequenceClassification.from_pretrained(
        str(settings.out), num_labels=2
    )  # the code in the card
    assert "AutoPeftModelForSequenceClassification" in card and torch.equal(_scores(shown.eval()), _scores(model))
    plain = load_steered(settings.model, [], 1.0, False)[0]
    assert type(plain).__name__ == "BertModel"


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([{"text": "w1", "label": "a"}] * 2, {}, "All rows have the label 'a'"),
        ([{"tokens": ["w1"], "tags": ["A", "B"]}], {}, "one for each of its tokens"),
        ([{"tokens": ["w1"], "tags": ["A"]}], {}, "All rows have the label 'A'"),
        ([{"text": "w1", "label": None}], {}, "has no label"),
        ([{"text": "w1"}], {}, "a row needs text and label"),
        ([{"prompt": "w1", "completion": "w2"}] * 2, {}, "a row needs text and label"),
        (paired(2), {"batch_size": 1}, "batch_size of 2 or more"),
    ],
)
def test_unusable_rows_raise_before_anything_is_written(rows, changes, message, settings, tmp_path):
    wrong = replace(settings, data=str(write(tmp_path / "wrong.jsonl", rows)), **changes)
    with pytest.raises(ActshiftError, match=message):
        train(wrong)
    assert not Path(str(settings.out)).exists()


def test_unknown_evaluation_label_raises(settings, tmp_path):
    other = write(tmp_path / "other.jsonl", [{"text": "w1", "label": "fine"}, {"text": "w2", "label": "dul"}])
    with pytest.raises(ActshiftError, match=r"Row 2 has the label 'dul' \(did you mean 'dull'\?\)"):
        train(replace(settings, eval_data=str(other)))


def test_sft_of_an_encoder_raises(settings):
    with pytest.raises(ActshiftError, match="which BertLMHeadModel needs"):
        train(replace(settings, objective="sft"))


@pytest.mark.slow
def test_loading_adapters_with_different_heads_raises(settings, tmp_path):
    train(settings)
    other = write(tmp_path / "tags.jsonl", tagged(8))
    train(replace(settings, data=str(other), out=str(tmp_path / "tags")))
    with pytest.raises(ActshiftError, match=r"have different heads, SEQ_CLS .* and TOKEN_CLS"):
        load_steered(None, [str(settings.out), str(tmp_path / "tags")], 1.0, False)


def test_causal_classifier_ignores_padding(settings, tmp_path):
    save_encoder(tmp_path / "llama", "llama", "AutoModelForCausalLM", pad_token_id=None)
    own = replace(settings, model=str(tmp_path / "llama"), objective="classify")
    train(own)
    model, tokenizer = _load(own)
    alone, together = (evaluate(model, tokenizer, classed(12), batch_size=size) for size in (1, 12))
    assert alone.predictions == together.predictions and model.config.pad_token_id == tokenizer.eos_token_id
