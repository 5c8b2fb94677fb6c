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


def _model(auto: str, **overrides):
    return with_head("bert", auto, **overrides)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_classes_are_those_of_one_text_at_a_time_whatever_the_padding(batch_size):
    model, tokenizer = _model("AutoModelForSequenceClassification", **CLASSES), word_tokenizer()
    rows = classed(20)
    report = evaluate(model, tokenizer, rows, batch_size=batch_size)
    with torch.no_grad():
        best = [model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax().item() for row in rows]
    assert [one.prediction for one in report.predictions] == [LABELS[index] for index in best]
    assert [one.prompt for one in report.predictions] == [row["text"] for row in rows]
    right = sum(LABELS[index] == row["label"] for index, row in zip(best, rows, strict=True))
    assert (report.correct, report.total) == (right, 20) and 0 < right < 20


def test_a_pair_is_read_as_one_text():
    model = _model("AutoModelForSequenceClassification", **CLASSES)
    rows = [{**row, "label": "fine"} for row in paired(4)]
    [alone] = {one.prompt for one in evaluate(model, word_tokenizer(), rows[:1]).predictions}
    assert alone == f"{rows[0]['text']}\n{rows[0]['text_pair']}"


def test_every_word_has_its_tag_also_behind_the_end_of_the_context():
    model = _model("AutoModelForTokenClassification", **TAGS, max_position_embeddings=4)
    row = {"tokens": [f"w{n}" for n in range(6)], "tags": ["LOW"] * 6}
    with pytest.warns(UserWarning, match="1 of 1 rows exceed max_length 4"):
        report = evaluate(model, word_tokenizer(), [row])
    with torch.no_grad():
        best = model(input_ids=torch.tensor([[3, 4, 5, 6]])).logits.argmax(-1)[0].tolist()
    found = [one.prediction for one in report.predictions]
    assert found == [*(TAGS["id2label"][index] for index in best), "", ""]
    assert [one.prompt for one in report.predictions] == row["tokens"]


def test_a_partner_is_found_by_its_vector():
    model, rows = _model("AutoModel"), paired(6)
    same = [{"text": row["text"], "text_pair": row["text"]} for row in rows]
    assert evaluate(model, word_tokenizer(), Dataset.from_list(same)).accuracy == 1
    assert evaluate(model, word_tokenizer(), rows, batch_size=2).scorer == "nearest partner"


@pytest.mark.parametrize(
    ("auto", "more", "row", "says"),
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
def test_what_does_not_fit_the_head_is_refused(auto, more, row, says):
    with pytest.raises(ActshiftError, match=says):
        evaluate(_model(auto, **more), word_tokenizer(), [row])


def test_a_language_model_is_no_classifier_and_a_classifier_writes_nothing():
    model, tokenizer = load_base()
    with pytest.raises(ActshiftError, match="SEQ_CLS, and this one has CAUSAL_LM"):
        evaluate(model, tokenizer, classed(1))
    with pytest.raises(ActshiftError, match="its head is FEATURE_EXTRACTION"):
        generate_completions(_model("AutoModel"), word_tokenizer(), ["w1"])
