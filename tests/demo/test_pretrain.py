"""The script that makes the base: a whole folder or none, the same weights for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actshift.demo.pretrain import PretrainConfig, batches, pretrain
from actshift.demo.tokenizer import build_tokenizer
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


def test_it_writes_a_model_that_transformers_loads(tmp_path: Path) -> None:
    out = pretrain(tmp_path / "base", TINY)
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(out, local_files_only=True))
    assert json.loads((out / "pretraining.json").read_text())["config"]["steps"] == 4
    assert "4 steps" in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_the_same_seed_makes_the_same_weights(tmp_path: Path) -> None:
    def weights(name: str, config: PretrainConfig) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(pretrain(tmp_path / name, config))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    first = weights("first", TINY)
    assert torch.equal(first, weights("again", TINY))
    assert not torch.equal(first, weights("other", replace(TINY, seed=1)))


def test_it_refuses_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="exists already"):
        pretrain(tmp_path, TINY)


def test_only_answers_weigh_fully_and_padding_weighs_nothing() -> None:
    tokenizer = build_tokenizer()
    ids, weights = next(batches(TINY, tokenizer))
    assert ids.shape == weights.shape
    assert torch.equal(weights == 0, ids == tokenizer.pad_token_id)
    assert (weights[ids == tokenizer.eos_token_id] == 1).all()
