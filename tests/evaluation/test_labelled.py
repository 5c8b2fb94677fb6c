"""Scores of encoders: classes, tags and retrieval."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from actshift import ActshiftError
from actshift.demo import load_base
from actshift.evaluation import evaluate, generate_completions
from tests.encoders import LABELS, classed, paired, tagged
from tests.tiny import word_tokenizer
from tests.zoo import with_head

CLASSES = {"id2label": dict(enumerate(LABELS))}
TAGS = {"id2label": {0: "LOW", 1: "HIGH"}}


def _with_head(auto: str, **overrides):
    return with_head("bert", auto, **overrides)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_predict_the_classes_of_single_texts(batch_size):
    model, tokenizer = _with_head("AutoModelForSequenceClassification", **CLASSES), word_tokenizer()
    rows = classed(20)
    report = evaluate(model, tokenizer, rows, batch_size=batch_size)
    with torch.no_grad():
        best = [model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax().item() for row in rows]
    assert [row.prediction for row in report.predictions] == [LABELS[index] for index in best]
    assert [row.prompt for row in report.predictions] == [row["text"] for row in rows]
    right = sum(LABELS[index] == row["label"] for index, row in zip(best, rows, strict=True))
    assert (report.correct, report.total) == (right, 20) and 0 < right < 20


def test_the_prompt_of_a_pair_has_both_texts():
    model = _with_head("AutoModelForSequenceClassification", **CLASSES)
    rows = [{**row, "label": "fine"} for row in paired(4)]
    [prediction] = evaluate(model, word_tokenizer(), rows[:1]).predictions
    assert prediction.prompt == f"{rows[0]['text']}\n{rows[0]['text_pair']}"


def test_every_word_has_a_prediction_even_beyond_the_context():
    model = _with_head("AutoModelForTokenClassification", **TAGS, max_position_embeddings=4)
    row = {"tokens": [f"w{n}" for n in range(6)], "tags": ["LOW"] * 6}
    with pytest.warns(UserWarning, match="1 of 1 rows exceed max_length 4"):
        report = evaluate(model, word_tokenizer(), [row])
    with torch.no_grad():
        best = model(input_ids=torch.tensor([[3, 4, 5, 6]])).logits.argmax(-1)[0].tolist()
    tags = [row.prediction for row in report.predictions]
    assert tags == [*(TAGS["id2label"][index] for index in best), "", ""]
    assert [row.prompt for row in report.predictions] == row["tokens"]


def test_the_partner_of_a_text_is_retrieved_by_its_vector():
    model, rows = _with_head("AutoModel"), paired(6)
    same = [{"text": row["text"], "text_pair": row["text"]} for row in rows]
    assert evaluate(model, word_tokenizer(), Dataset.from_list(same)).accuracy == 1
    assert evaluate(model, word_tokenizer(), rows, batch_size=2).scorer == "nearest partner"


@pytest.mark.parametrize(
    ("auto", "classes", "row", "message"),
    [
        ("AutoModelForSequenceClassification", CLASSES, {"text": "w1", "label": "fin"}, "did you mean 'fine'"),
        ("AutoModelForTokenClassification", TAGS, {"tokens": ["w1"], "tags": ["MID"]}, "the model knows LOW, HIGH"),
        (
            "AutoModelForTokenClassification",
            TAGS,
            {"text": "w1", "label": "fine"},
            "need a model with the head SEQ",
        ),
        ("AutoModelForSequenceClassification", CLASSES, tagged(1)[0], "need a model with the head TOKEN"),
        ("AutoModelForSequenceClassification", CLASSES, paired(1)[0], "need a model without a head"),
        ("AutoModelForTokenClassification", TAGS, {"tokens": ["w1"], "tags": []}, "one for each of its tokens"),
        ("AutoModelForSequenceClassification", CLASSES, {"prompt": "w1", "completion": " w2"}, "writes no text"),
    ],
)
def test_rows_that_do_not_fit_the_head_are_refused(auto, classes, row, message):
    with pytest.raises(ActshiftError, match=message):
        evaluate(_with_head(auto, **classes), word_tokenizer(), [row])


def test_a_language_model_cannot_classify_and_an_encoder_cannot_generate():
    model, tokenizer = load_base()
    with pytest.raises(ActshiftError, match="SEQ_CLS, and this one has CAUSAL_LM"):
        evaluate(model, tokenizer, classed(1))
    with pytest.raises(ActshiftError, match="its head is FEATURE_EXTRACTION"):
        generate_completions(_with_head("AutoModel"), word_tokenizer(), ["w1"])
