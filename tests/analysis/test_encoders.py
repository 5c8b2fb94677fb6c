"""`locate` and `extract` on classifiers and embedding models, where padding must not count."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from actshift import ActshiftError, extract, load_adapter, locate
from actshift.analysis.batches import token_batches
from actshift.data.pairs import normalized_means
from actshift.sites import find_blocks
from actshift.tuner.classifier_head import saved_head
from tests.analysis.twins import moved
from tests.encoders import LABELS, classed, paired, tagged
from tests.tiny import word_tokenizer
from tests.zoo import with_head

KINDS = {
    "SEQ_CLS": ("AutoModelForSequenceClassification", LABELS, classed),
    "TOKEN_CLS": ("AutoModelForTokenClassification", ("HIGH", "LOW"), tagged),
    "FEATURE_EXTRACTION": ("AutoModel", (), paired),
}
each_head = pytest.mark.parametrize("head", KINDS)


def _model(head: str, name: str = "bert"):
    auto, labels, _ = KINDS[head]
    return with_head(name, auto, **({"id2label": dict(enumerate(labels))} if labels else {}))


def _batches(head: str, count: int, size: int):
    return token_batches(KINDS[head][2](count), word_tokenizer(), size)


@pytest.mark.parametrize("head", ["SEQ_CLS", "TOKEN_CLS"])
def test_padding_does_not_change_gains(head):
    reports = [locate(_model(head), _batches(head, 8, size), ["post_block"], weights=False) for size in (1, 8)]
    for alone, together in zip(*(report.at("post_block") for report in reports), strict=True):
        assert alone.singular_values == pytest.approx(together.singular_values, rel=1e-3, abs=1e-6)
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-5)
    assert reports[0].targets == reports[1].targets


def test_the_loss_of_text_pairs_is_contrastive():
    model, [batch] = _model("FEATURE_EXTRACTION"), _batches("FEATURE_EXTRACTION", 5, 5)
    report = locate(model, [batch], ["post_block"], weights=False)
    with torch.no_grad():
        u = normalized_means(
            model(batch["input_ids"], batch["attention_mask"]).last_hidden_state, batch["attention_mask"]
        )
        mask = batch["pair_attention_mask"]
        v = normalized_means(model(batch["pair_input_ids"], mask).last_hidden_state, mask)
    assert report.loss == pytest.approx(F.cross_entropy(20 * u @ v.T, torch.arange(5)).item(), rel=1e-5)
    assert report.targets == 5 and all(place.mean for place in report.at("post_block"))


@each_head
def test_an_encoder_is_extracted_together_with_its_head(head, tmp_path):
    base = _model(head)
    finetuned = moved(moved(base, 0.1, "layer."), 0.5, "classifier")
    plain = {name: value.clone() for name, value in base.state_dict().items()}
    folder = tmp_path / "adapter"
    extraction = extract(base, finetuned, _batches(head, 60, 20), nonlinear_steps=0, folder=folder, linear=False)
    assert (
        extraction.report.kl["oracle"] < 1e-6 < extraction.report.kl["closed_form"] < 0.9 * extraction.report.kl["base"]
    )
    assert extraction.report.oracle.outside == ()
    assert set(saved_head(str(folder)).labels) == set(KINDS[head][1])
    fresh = _model(head)
    fresh.load_state_dict({**fresh.state_dict(), **{n: v for n, v in plain.items() if "classifier" not in n}})
    loaded, [batch] = load_adapter(fresh, str(folder)), _batches(head, 4, 4)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(loaded(**inputs)[0], extraction.model.eval()(**inputs)[0])


def test_padding_does_not_change_the_oracle():
    head, layers = "SEQ_CLS", []
    for size in (1, 12):
        base = _model(head)
        extraction = extract(
            base, moved(base, 0.1, "layer."), _batches(head, 12, size), linear=False, nonlinear_steps=0
        )
        layers.append([(layer.size, *layer.r2.values()) for layer in extraction.report.oracle.layers])
    for alone, together in zip(*layers, strict=True):
        assert alone == pytest.approx(together, rel=1e-3, abs=1e-3)


def test_models_with_different_heads_are_rejected():
    with pytest.raises(ActshiftError, match="different heads, SEQ_CLS and TOKEN_CLS"):
        extract(_model("SEQ_CLS"), _model("TOKEN_CLS"), _batches("SEQ_CLS", 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
@each_head
def test_every_bert_like_model_can_be_located(head, name):
    report = locate(_model(head, name), _batches(head, 8, 4))
    assert len(report.at("post_block")) == len(find_blocks(_model(head, name)))
