"""LoRA adapters of PEFT: created, loaded, and refused if they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from actshift import ActshiftError, JointConfig
from actshift.tuner.loading import base_model_of, load_any_adapter, lora_model
from tests.contract.cases import fresh_model, randomise
from tests.tiny import save_adapter
from tests.zoo import ARCHITECTURES

IDS = torch.tensor([[3, 5, 6, 7]])


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    model = lora_model(ARCHITECTURES["llama"](), r=2)
    randomise(model)
    model.save_pretrained(str(tmp_path / "lora"))
    return tmp_path / "lora"


def test_fresh_lora_is_a_no_op_and_trains_every_linear_map_of_the_blocks() -> None:
    base = ARCHITECTURES["llama"]()
    before = base(IDS).logits
    model = lora_model(base, r=2)
    assert torch.equal(model(IDS).logits, before)
    maps = {name.split(".lora_")[0].rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert maps == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}


def test_several_saved_loras_load_into_one_model(lora: Path) -> None:
    model = load_any_adapter(ARCHITECTURES["llama"](), str(lora))
    once = model(IDS).logits
    with model.disable_adapter():
        assert not torch.equal(model(IDS).logits, once)
    load_any_adapter(model, str(lora), "second")
    assert set(model.peft_config) == {"default", "second"}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_load_any_adapter_loads_a_steering_adapter(tmp_path: Path) -> None:
    ARCHITECTURES["llama"]().save_pretrained(tmp_path / "base")
    folder = save_adapter(tmp_path / "steer", tmp_path / "base", rank=2)
    assert "default" in load_any_adapter(ARCHITECTURES["llama"](), str(folder)).peft_config
    assert base_model_of(str(folder)) == (str(tmp_path / "base"), None)


def test_lora_and_steering_adapters_cannot_be_loaded_together(lora: Path, tmp_path: Path) -> None:
    ARCHITECTURES["llama"]().save_pretrained(tmp_path / "base")
    folder = save_adapter(tmp_path / "steer", tmp_path / "base", rank=2)
    steered = load_any_adapter(ARCHITECTURES["llama"](), str(folder))
    with pytest.raises(ActshiftError, match="is a LoRA, which PEFT cannot load beside a steering adapter"):
        load_any_adapter(steered, str(lora), "lora")
    with_lora = load_any_adapter(ARCHITECTURES["llama"](), str(lora))
    with pytest.raises(ActshiftError, match="is a steering adapter, which PEFT cannot load beside a LoRA"):
        load_any_adapter(with_lora, str(folder), "steer")


def test_lora_that_does_not_fit_is_refused(lora: Path) -> None:
    with pytest.raises(ActshiftError, match=r"The LoRA .* does not fit LlamaForCausalLM"):
        load_any_adapter(ARCHITECTURES["llama"](hidden_size=64), str(lora))
    config = json.loads((lora / "adapter_config.json").read_text())
    config["target_modules"] = ["nope"]
    (lora / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ActshiftError, match=r"The LoRA .* does not fit LlamaForCausalLM"):
        load_any_adapter(ARCHITECTURES["llama"](), str(lora))


STOCK = {
    "dora": {"use_dora": True},
    "bias of LoRA-B": {"lora_bias": True},
    "patterns": {"target_modules": r".*\.(q|v)_proj", "rank_pattern": {"q_proj": 3}},
    "new tokens": {"trainable_token_indices": [1, 2]},
    "saved modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
}


@pytest.mark.parametrize("fields", STOCK.values(), ids=STOCK)
def test_what_peft_saves_and_loads_is_loaded(fields, tmp_path: Path) -> None:
    model = get_peft_model(fresh_model("llama"), LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **fields}))
    randomise(model)
    expected = model.eval()(IDS).logits
    model.save_pretrained(str(tmp_path), save_embedding_layers=True)
    loaded = load_any_adapter(load_any_adapter(fresh_model("llama"), str(tmp_path)), str(tmp_path), "second")
    for name in ("default", "second"):
        loaded.set_adapter(name)
        assert torch.equal(loaded.eval()(IDS).logits, expected)


def test_a_joint_adapter_with_lora_on_experts_is_loaded_twice(tmp_path: Path) -> None:
    experts = ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    config = JointConfig(r=2, target_modules=["q_proj"], target_parameters=experts, orthogonality=None)
    model = get_peft_model(fresh_model("mixtral"), config)
    randomise(model)
    expected = model.eval()(IDS).logits
    model.save_pretrained(str(tmp_path))
    loaded = load_any_adapter(load_any_adapter(fresh_model("mixtral"), str(tmp_path)), str(tmp_path), "second")
    loaded.set_adapter("second")
    torch.testing.assert_close(loaded.eval()(IDS).logits, expected)


def test_a_lora_that_peft_cannot_load_leaves_the_model_unchanged(lora: Path) -> None:
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps({**config, "trainable_token_indices": [1], "use_dora": True}))
    base = ARCHITECTURES["llama"]()
    before = base.state_dict()
    with pytest.raises(ActshiftError, match=r"The LoRA .* does not fit LlamaForCausalLM"):
        load_any_adapter(base, str(lora))
    assert list(base.state_dict()) == list(before) and not hasattr(base, "peft_config")
