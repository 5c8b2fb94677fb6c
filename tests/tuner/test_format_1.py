"""Adapters in `format_1/` were saved by actshift at commit 252b459 and must still load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from actshift import load_adapter, prompt_lengths

FOLDER = Path(__file__).with_name("format_1")
ADAPTERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
IDS = torch.arange(1, 13).reshape(2, 6)


@pytest.fixture
def base() -> LlamaForCausalLM:
    """Return the model that the adapters were saved for; its weights come from a formula, not a random generator."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for index, (_, parameter) in enumerate(sorted(model.named_parameters())):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (index + 1) * 0.37 + index)
            is_norm = parameter.ndim == 1
            parameter.copy_(torch.ones(()) if is_norm else 0.2 * wave.reshape(parameter.shape).float())
    return model


def logits_of(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, attention_mask=torch.ones_like(IDS)).logits


@pytest.fixture(scope="module")
def saved() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "logits.safetensors")


def test_every_kind_of_adapter_is_kept() -> None:
    kinds = {"low_rank", "linear_mlp", "vector", "loreft", "jola", "head_vector", "two_interventions", "joint"}
    assert set(ADAPTERS) == kinds


@pytest.mark.parametrize("name", ADAPTERS)
def test_loaded_adapter_computes_what_it_computed_when_saved(name: str, base, saved) -> None:
    torch.testing.assert_close(logits_of(base), saved["base"], atol=1e-5, rtol=1e-5)
    model = load_adapter(base, str(FOLDER / name)).eval()
    with prompt_lengths(model, [6, 6]):
        logits = logits_of(model)
    torch.testing.assert_close(logits, saved[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits, saved["base"], atol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_saving_again_keeps_tensor_names_and_config_keys(name: str, base, tmp_path: Path) -> None:
    load_adapter(base, str(FOLDER / name)).save_pretrained(str(tmp_path))
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (FOLDER / name, tmp_path)]
    assert configs[0].keys() == configs[1].keys()
    names = []
    for folder in (FOLDER / name, tmp_path):
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            names.append(sorted(file.keys()))
    assert names[0] == names[1]
    assert all("lora_" in tensor for tensor in names[0])
