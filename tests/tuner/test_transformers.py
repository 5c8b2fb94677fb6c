"""The native API of transformers: add_adapter, load_adapter, and AutoModel with an adapter folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from actshift import SteeringConfig, attach, set_strength
from tests.contract.cases import randomise, run
from tests.zoo import ARCHITECTURES


def test_automodel_loads_an_adapter_folder(base, base_folder, tmp_path):
    model = attach(base, SteeringConfig(rank=4, task_type="CAUSAL_LM"))
    randomise(model)
    model.save_pretrained(str(tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(run(loaded, "llama"), run(model.eval(), "llama"))


def test_native_add_disable_save_load_and_delete(base, base_folder, tmp_path):
    plain = run(base, "llama")
    base.add_adapter(SteeringConfig(rank=4), "mine")
    randomise(base)
    steered = run(base.eval(), "llama")
    base.disable_adapters()
    assert torch.equal(run(base, "llama"), plain)
    base.enable_adapters()
    base.save_pretrained(tmp_path)

    other = AutoModelForCausalLM.from_pretrained(base_folder)
    other.load_adapter(str(tmp_path), adapter_name="yours")
    assert torch.equal(run(other, "llama"), steered)
    set_strength(other, 0)
    assert torch.equal(run(other, "llama"), plain)
    other.delete_adapter("yours")
    assert torch.equal(run(other, "llama"), plain)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt2", "bloom", "gemma3"])
def test_native_load_on_architectures_with_weight_conversions(name, tmp_path):
    model = attach(ARCHITECTURES[name](), SteeringConfig(rank=4))
    randomise(model)
    model.save_pretrained(str(tmp_path))
    other = ARCHITECTURES[name]()
    other.load_adapter(str(tmp_path))
    assert torch.equal(run(other, name), run(model.eval(), name))


def test_classification_head_is_saved_with_the_adapter(base_folder, tmp_path):
    def classifier():
        torch.manual_seed(3)
        return AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=3, pad_token_id=0)

    model = attach(classifier(), SteeringConfig(rank=4, task_type="SEQ_CLS"))
    randomise(model)
    model.save_pretrained(str(tmp_path))
    from actshift import load_adapter

    torch.manual_seed(9)  # other initial weights, which the saved head must replace
    other = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=3, pad_token_id=0)
    assert torch.equal(run(load_adapter(other, str(tmp_path)).eval(), "llama"), run(model.eval(), "llama"))
