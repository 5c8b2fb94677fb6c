"""Each method of the paper through the one trainer: what it trains, foresees, saves, and says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, load_adapter
from actshift.loading import load_model
from actshift.training import TrainResult, TrainSettings, plan, train
from tests.training.methods import METHODS

ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"]
IDS = torch.tensor([[1, 5, 6, 7]])


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def chosen(settings: TrainSettings, method: str) -> TrainSettings:
    return replace(settings, max_steps=4, **METHODS[method])


def test_each_trains_as_foreseen_and_leaves_a_whole_result(chosen: TrainSettings, method: str) -> None:
    foreseen = plan(chosen)
    result = train(chosen)
    folder = Path(str(chosen.out))
    assert (foreseen.trainable, foreseen.parameters) == (result.fit.trainable, result.fit.parameters)
    assert result.folder_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert TrainResult.from_dict(json.loads((folder / "metrics.json").read_text())) == result
    if method != "full":
        assert sorted(file.name for file in folder.iterdir()) == ADAPTER
    with pytest.warns(UserWarning, match="already finished"):
        assert train(chosen, resume=True) == result


def test_full_leaves_a_model_that_transformers_loads(settings: TrainSettings) -> None:
    result = train(replace(settings, method="full", max_steps=2))
    assert result.fit.share == 1
    model, tokenizer = load_model(str(settings.out))
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert tokenizer.eos_token == "</s>"
    card = Path(str(settings.out), "README.md").read_text()
    assert "library_name: transformers" in card and "adapter" not in card.split("## Training")[0]


def test_full_in_bf16_keeps_its_weights_in_float32(settings: TrainSettings) -> None:
    """Updates this small would be rounded away in bf16, whose numbers are 0.4 % apart."""
    train(replace(settings, method="full", precision="bf16", max_steps=2, learning_rate=1e-5))
    after = load_file(Path(str(settings.out), "model.safetensors"))
    before = load_file(Path(str(settings.model), "model.safetensors"))
    changes = [float((tensor - before[name]).abs().max()) for name, tensor in after.items()]
    assert all(0 < change < 1e-4 for change in changes)


def test_lora_leaves_a_stock_folder_that_loads_and_merges(settings: TrainSettings) -> None:
    train(replace(settings, **METHODS["lora"]))
    config = json.loads(Path(str(settings.out), "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 2)
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    before = base(IDS).logits
    adapted = PeftModel.from_pretrained(base, str(settings.out)).eval()
    after = adapted(IDS).logits
    assert not torch.allclose(before, after)
    torch.testing.assert_close(adapted.merge_and_unload()(IDS).logits, after)


def test_loras_learning_rate_is_its_own(settings: TrainSettings, tmp_path: Path) -> None:
    one = replace(settings, method="joint", max_steps=1, warmup=0, orthogonality="none", learning_rate=1e-2)
    for name, rate in (("same", None), ("slow", 1e-4)):
        train(replace(one, lora_learning_rate=rate, out=str(tmp_path / name)))
    same, slow = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("same", "slow"))
    for name, tensor in same.items():
        if "lora_steer.up" in name:
            assert torch.equal(tensor, slow[name])
        if "lora_B" in name:  # it starts at zero, and Adam's first step is the learning rate
            torch.testing.assert_close(tensor, slow[name] * 100)


def test_the_saved_file_of_a_joint_run_keeps_the_rule(settings: TrainSettings) -> None:
    train(replace(settings, method="joint"))
    tensors = load_file(Path(str(settings.out), "adapter_model.safetensors"))
    for layer in range(3):
        [down] = [tensors[name] for name in tensors if f"layers.{layer}.actshift.lora_steer.down" in name]
        [written] = [tensors[name] for name in tensors if f"layers.{layer}.mlp.down_proj.lora_B" in name]
        basis, _ = torch.linalg.qr(written.double())  # of full rank: eight columns of 32 numbers that training moved
        shares = (down.double() @ basis).norm(dim=1) / down.double().norm(dim=1)
        assert written.abs().max() > 1e-4 and shares.max() <= 1e-5


@pytest.mark.parametrize("every", ["3", "epoch"])
def test_a_rule_that_is_seldom_enforced_holds_in_the_saved_file_too(settings: TrainSettings, every: str) -> None:
    from actshift.tuner import orthogonality_violations

    train(replace(settings, method="joint", max_steps=4, orthogonality_every=every))
    model = load_adapter(AutoModelForCausalLM.from_pretrained(settings.model), str(settings.out))
    assert max(orthogonality_violations(model).values()) <= 1e-5


def test_jolas_gates_are_shut_or_open_when_saved_and_its_schedule_is_the_run(settings: TrainSettings) -> None:
    train(replace(settings, **METHODS["jola"]))
    adapter = json.loads(Path(str(settings.out), "adapter_config.json").read_text())["adapter"]
    assert adapter["anneal_steps"] == settings.max_steps
    model = load_adapter(AutoModelForCausalLM.from_pretrained(settings.model), str(settings.out)).train()
    assert torch.equal(model(IDS).logits, model(IDS).logits)  # no gate is drawn any more


@pytest.mark.slow
def test_the_card_says_what_was_trained(chosen: TrainSettings, method: str) -> None:
    train(chosen)
    said = {
        "steering": "post-block activations by a learned `LowRank(rank=8",
        "lora": "Updates q_proj, down_proj by LoRA of rank 2, α 16.",
        "joint": 'actshift.set_halves(model, "both")',
        "full": "Every weight is fine-tuned.",
        "loreft": "LoReFT(rank=8)` at these tokens: first 2 and last 2 prompt tokens",
        "jola": "attention-heads activations by a learned `JoLA(",
        "lofit": "| heads | 3 heads (block ",
    }
    assert said[method] in Path(str(chosen.out), "README.md").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"method": "lora", "rank": 4},
            "rank has no effect when method is lora; leave it out, or use method steering or",
        ),
        ({"method": "full", "lora_r": 4}, "lora_r has no effect when method is full"),
        ({"lora_learning_rate": 1e-3}, "lora_learning_rate has no effect when method is steering"),
        (
            {"method": "joint", "orthogonality": "none", "orthogonality_every": "2"},
            "has no effect when orthogonality is",
        ),
        ({"first_tokens": 2}, "first_tokens has no effect when positions is all; leave it out, or use positions ends"),
        ({"lofit_heads": 2}, "lofit_heads has no effect when adapter is low_rank"),
        ({"adapter": "jola", "l1": 1}, "The adapter jola has no l1"),
        ({"adapter": "lofit", "rank": 4}, "The adapter lofit has no rank"),
        ({"adapter": "loreft", "activation": "gelu"}, "The adapter loreft has no activation"),
        ({"adapter": "lofit", "lofit_heads": 13}, "lofit_heads is 13, but the steered blocks have only 12 heads"),
        ({"adapter": "lofit", "max_steps": 1}, "two phases, and 1 step is too few"),
        ({"adapter": "lofit", "site": "post_block"}, "(?i)attention heads"),
        ({"method": "joint", "adapter": "lofit"}, "cannot be combined with LoRA"),
        ({"method": "joint", "orthogonality_every": "weekly"}, "every must be a number of optimiser steps from 1 up"),
        ({"method": "joint", "lora_targets": ("q_proj",)}, "nothing to be orthogonal to"),
        ({"method": "joint", "orthogonality_penalty": 0.1, "orthogonality_every": "2"}, "cannot stand beside it"),
        ({"method": "lora", "lora_targets": ("nope",)}, "LoRA does not fit LlamaForCausalLM: .*nope"),
        ({"positions": "ends", "first_tokens": 0, "last_tokens": 0}, "steers no token"),
    ],
)
@pytest.mark.parametrize("verb", [train, plan])
def test_what_does_not_go_together_is_said_before_anything_is_written(settings, verb, given, told) -> None:
    with pytest.raises(ActshiftError, match=told):
        verb(replace(settings, **given))
    assert not Path(settings.out).exists()
