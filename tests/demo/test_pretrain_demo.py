"""The pretraining script writes a complete folder or none, and the same weights for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from demo_corpus import build_tokenizer
from pretrain_demo import PretrainConfig, batches, pretrain
from transformers import AutoModelForCausalLM, AutoTokenizer

from actshift.errors import ActshiftError

TINY = PretrainConfig(
    hidden_size=16,
    intermediate_size=32,
    layers=1,
    heads=1,
    steps=4,
    batch_size=4,
    warmup_steps=2,
    skill_samples=2,
)


def test_pretraining_writes_a_model_that_transformers_loads(tmp_path: Path) -> None:
    out = pretrain(tmp_path / "base", TINY)
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(out, local_files_only=True))
    assert json.loads((out / "pretraining.json").read_text())["config"]["steps"] == 4
    assert "4 steps" in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.slow
def test_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    def weights(name: str, config: PretrainConfig) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(pretrain(tmp_path / name, config))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    first = weights("first", TINY)
    assert torch.equal(first, weights("again", TINY))
    assert not torch.equal(first, weights("other", replace(TINY, seed=1)))


def test_existing_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="already exists"):
        pretrain(tmp_path, TINY)


def test_loss_weights_are_one_for_answers_and_zero_for_padding() -> None:
    tokenizer = build_tokenizer()
    ids, weights = next(batches(TINY, tokenizer))
    assert ids.shape == weights.shape
    assert torch.equal(weights == 0, ids == tokenizer.pad_token_id)
    assert (weights[ids == tokenizer.eos_token_id] == 1).all()
