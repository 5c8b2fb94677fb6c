"""The bundled base model: complete, small, skilled in its own forms, and unable to do the demo task."""

from __future__ import annotations

import json

import pytest
import torch
from demo_corpus import FORMS, build_tokenizer
from pretrain_demo import skill_accuracy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from actshift.demo import BASE_DIR, load_base
from actshift.demo.task import make_rows
from actshift.evaluation import evaluate


@pytest.fixture(scope="module")
def base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_base()


def test_folder_is_complete_and_at_most_8_mb() -> None:
    names = {path.name for path in BASE_DIR.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "loss.png",
        "model.safetensors",
        "pretraining.json",
        "README.md",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in BASE_DIR.iterdir()) <= 8_000_000


def test_special_tokens_of_model_and_tokenizer_agree(base: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = base
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.bos_token_id == tokenizer.bos_token_id
    assert model.config.vocab_size == len(tokenizer)


def test_vocabulary_matches_the_corpus(
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    assert base[1].get_vocab() == build_tokenizer().get_vocab()


def test_weights_are_finite(base: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    assert all(torch.isfinite(parameter).all() for parameter in base[0].parameters())


@pytest.mark.parametrize("form", FORMS)
def test_base_solves_its_own_forms(base: tuple[PreTrainedModel, PreTrainedTokenizerBase], form: str) -> None:
    assert skill_accuracy(*base, form, depth=2, n=200) >= 0.9


def test_base_ends_its_documents_with_eos(base: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = base
    batch = tokenizer(
        ["seven in french is", "what is the sum of two and three ? answer :"],
        padding=True,
        return_tensors="pt",
    )
    output = model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :]) == [
        "sept . <eos>",
        "five . <eos>",
    ]


def test_base_fails_at_the_demo_task(base: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    assert evaluate(*base, make_rows("test", 200), max_new_tokens=8, batch_size=100).accuracy < 0.05


def test_pretraining_record_is_complete() -> None:
    record = json.loads((BASE_DIR / "pretraining.json").read_text(encoding="utf-8"))
    losses = record["loss_every_50_steps"]
    assert len(losses) == record["config"]["steps"] / 50
    assert losses[-1] < losses[0] / 3
    assert min(share for name, share in record["skill"].items() if name.endswith("depth 2")) >= 0.9
