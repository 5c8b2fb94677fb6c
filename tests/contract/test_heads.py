"""The contract on classifiers and encoders: a head is trained and saved with the adapter."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from actshift import ActshiftError, attach, load_adapter, set_strength
from actshift.tuner.classifier_head import saved_head
from actshift.tuner.loading import load_any_adapter, lora_model
from tests.contract.cases import ADAPTERS, OWN_SITE, config, randomise
from tests.zoo import example_inputs, output_of, with_head

HEADS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "FEATURE_EXTRACTION": "AutoModel",
}
BERT_LIKE = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "xlm-roberta", "llama")


def _is_fast(name: str, head: str, adapter: str) -> bool:
    return (name == "bert" and adapter == "nonlinear") or (name, head, adapter) == ("distilbert", "SEQ_CLS", "vector")


cases = pytest.mark.parametrize(
    ("name", "head", "adapter"),
    [
        pytest.param(*case, id="-".join(case), marks=() if _is_fast(*case) else pytest.mark.slow)
        for case in product(BERT_LIKE, HEADS, ADAPTERS)
    ],
)


def _model(name: str, head: str):
    model = with_head(name, HEADS[head], **({"num_labels": 3} if head != "FEATURE_EXTRACTION" else {}))
    return model.eval()


@torch.no_grad()
def _run(model: torch.nn.Module, name: str) -> torch.Tensor:
    return output_of(model(**example_inputs(name, batch=1)))


@cases
def test_fresh_adapter_is_a_no_op_and_loads_with_its_head(name, head, adapter, tmp_path):
    before = _run(_model(name, head), name)
    model = attach(_model(name, head), config(adapter, OWN_SITE[adapter], task_type=head)).eval()
    assert torch.equal(_run(model, name), before)
    randomise(model)
    after = _run(model, name)
    assert not torch.allclose(after, before)
    model.save_pretrained(str(tmp_path))
    fresh = _model(name, head)
    loaded = load_adapter(fresh, str(tmp_path)).eval()
    assert torch.equal(_run(loaded, name), after)
    labels = () if head == "FEATURE_EXTRACTION" else ("LABEL_0", "LABEL_1", "LABEL_2")
    assert saved_head(str(tmp_path)).labels == labels


@pytest.mark.parametrize("adapter_type", ["steering", "lora"])
@pytest.mark.parametrize(("trained", "loaded"), [("CAUSAL_LM", "SEQ_CLS"), ("SEQ_CLS", "CAUSAL_LM")])
def test_adapter_trained_with_another_head_is_refused(adapter_type, trained, loaded, tmp_path):
    heads = {**HEADS, "CAUSAL_LM": "AutoModelForCausalLM"}
    model = with_head("llama", heads[trained])
    settings = config("vector", "post_block", task_type=trained)
    adapted = attach(model, settings) if adapter_type == "steering" else lora_model(model, task_type=trained)
    adapted.save_pretrained(str(tmp_path))
    with pytest.raises(ActshiftError, match=f"trained with the head {trained}, and Llama.* has {loaded}"):
        load_any_adapter(with_head("llama", heads[loaded]), str(tmp_path))


@cases
def test_strength_zero_is_the_base_with_the_trained_head(name, head, adapter):
    model = attach(_model(name, head), config(adapter, OWN_SITE[adapter], task_type=head)).eval()
    randomise(model)
    saved = ".modules_to_save.default"
    trained = {
        key.removeprefix("base_model.model.").replace(saved, ""): value
        for key, value in model.state_dict().items()
        if saved in key
    }
    plain = _model(name, head)
    plain.load_state_dict({**plain.state_dict(), **trained})
    set_strength(model, 0)
    assert torch.equal(_run(model, name), _run(plain, name))
    assert bool(trained) == (head != "FEATURE_EXTRACTION")
