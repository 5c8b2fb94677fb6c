"""Adapters whose file holds embeddings: after the vocabulary was resized, with tied weights, and with saved modules."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from actshift import ActshiftError, JointConfig, SteeringConfig, load_adapter, set_strength
from tests.contract.cases import randomise

IDS = torch.tensor([[1, 2, 3, 59]])
OLD, NEW = 60, 64
CONFIGS = {
    "steering": lambda **fields: SteeringConfig(rank=2, task_type="CAUSAL_LM", **fields),
    "joint": lambda **fields: JointConfig(r=2, task_type="CAUSAL_LM", **fields),
}
TABLE = [
    pytest.param(*row, marks=() if row[0] == "steering" and row[4] is None else pytest.mark.slow)
    for row in itertools.product(
        CONFIGS, ("tied", "untied"), (OLD, NEW), ("auto", True, False), (None, ["lm_head"], ["embed_tokens", "lm_head"])
    )
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for name in ("tied", "untied"):
        torch.manual_seed(0)
        size = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
        LlamaForCausalLM(LlamaConfig(vocab_size=OLD, tie_word_embeddings=name == "tied", **size)).save_pretrained(
            folder / name
        )
    return folder


def load_base(folder: Path, rows: int, seed: int = 0):
    """Return the base model with a vocabulary of `rows`, and other random weights for each seed in the new ones."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def transformers_api(model, folder: str):
    model.load_adapter(folder)
    return model


@pytest.mark.parametrize(("kind", "name", "rows", "save", "modules"), TABLE)
def test_what_is_saved_can_be_loaded(kind, name, rows, save, modules, bases, tmp_path) -> None:
    model = get_peft_model(load_base(bases / name, rows), CONFIGS[kind](modules_to_save=modules))
    randomise(model)
    expected = model.eval()(IDS).logits
    model.save_pretrained(str(tmp_path), save_embedding_layers=save)
    same_rows = slice(OLD if save is False and modules is None else None)  # else the new rows are not in the file
    for load in (load_adapter, PeftModel.from_pretrained, transformers_api):
        loaded = load(load_base(bases / name, rows, seed=7), str(tmp_path)).eval()
        torch.testing.assert_close(loaded(IDS).logits[..., same_rows], expected[..., same_rows])
        if load is load_adapter:
            base, plain = load_base(bases / name, rows), loaded.unload().state_dict()
            for key, tensor in base.state_dict().items():
                kept = OLD if len(tensor) == NEW else None
                assert torch.equal(plain[key][:kept], tensor[:kept]), key
    if rows == OLD:
        loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(IDS).logits, expected)


@pytest.mark.parametrize("load", [load_adapter, transformers_api])
def test_only_rows_of_new_tokens_may_differ_from_the_base(load, bases, tmp_path) -> None:
    get_peft_model(load_base(bases / "untied", NEW), SteeringConfig(rank=2)).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.embed_tokens.weight"
    tensors[name][OLD - 1] += 1
    save_file(tensors, file)
    model = load_base(bases / "untied", NEW)
    before = model.get_input_embeddings().weight.clone()
    with pytest.raises(ActshiftError, match=r"would overwrite 'model\.embed_tokens\.weight' of the base model"):
        load(model, str(tmp_path))
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_a_model_without_the_new_tokens_is_refused(bases, tmp_path) -> None:
    get_peft_model(load_base(bases / "tied", NEW), SteeringConfig(rank=2)).save_pretrained(str(tmp_path))
    with pytest.raises(ActshiftError, match=r"model\.resize_token_embeddings\(64\)"):
        load_adapter(load_base(bases / "tied", OLD), str(tmp_path))


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_embeddings_saved_in_lower_precision_do_not_round_the_base(name, bases, tmp_path) -> None:
    trained = load_base(bases / name, NEW).bfloat16()
    get_peft_model(trained, SteeringConfig(rank=2)).save_pretrained(str(tmp_path))
    base = load_base(bases / name, NEW, seed=7)
    model = load_adapter(base, str(tmp_path)).eval()
    rows = model.get_base_model().get_input_embeddings().weight
    assert torch.equal(rows[:OLD], load_base(bases / name, OLD).get_input_embeddings().weight)
    assert torch.equal(rows[OLD:], trained.get_input_embeddings().weight[OLD:].float())
    set_strength(model, 0)
    assert torch.equal(model(IDS).logits, base(IDS).logits)


def test_a_resized_model_that_was_never_saved_keeps_its_old_rows(tmp_path) -> None:
    def resized(seed: int):
        torch.manual_seed(0)
        size = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=OLD, **size)).eval()
        torch.manual_seed(seed)
        model.resize_token_embeddings(NEW, mean_resizing=False)
        return model

    model = get_peft_model(resized(1), SteeringConfig(rank=2))
    randomise(model)
    model.save_pretrained(str(tmp_path), save_embedding_layers=True)
    assert torch.equal(load_adapter(resized(2), str(tmp_path))(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("save", [True, False])
def test_a_joint_adapter_with_lora_on_embeddings_can_be_loaded(save, bases, tmp_path) -> None:
    targets = ["embed_tokens", "down_proj", "lm_head"]
    model = get_peft_model(load_base(bases / "untied", OLD), JointConfig(r=2, target_modules=targets))
    randomise(model)
    expected = model.eval()(IDS).logits
    model.save_pretrained(str(tmp_path), save_embedding_layers=save)
    for load in (load_adapter, PeftModel.from_pretrained, transformers_api):
        loaded = load(load_base(bases / "untied", OLD), str(tmp_path)).eval()
        torch.testing.assert_close(loaded(IDS).logits, expected)
