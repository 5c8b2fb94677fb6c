"""Every method through `train`: its result, the loaded result, and errors for wrong settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import actshift.loading
from actshift import ActshiftError, SteeringConfig, load_adapter
from actshift.loading import load_config, load_model
from actshift.training import TrainResult, TrainSettings, plan, train
from tests.characters import write_rows
from tests.training.helpers import METHODS

ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"]


IDS = torch.tensor([[1, 5, 6, 7]])


def test_folder_contains_only_a_loadable_adapter(trained, settings):
    folder = Path(settings.out)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"
    ]  # fmt: skip
    assert trained.folder_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert trained.folder_bytes < 4 * trained.fit.trainable * 1.1 + 5000  # the other files are short texts
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        before = base(ids).logits
        assert not torch.equal(PeftModel.from_pretrained(base, str(folder))(ids).logits, before)


@pytest.mark.slow
def test_seed_determines_the_weights(settings, tmp_path):
    tensors = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(replace(settings, out=str(tmp_path / name), seed=seed, max_steps=2))
        tensors.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert tensors[0] == tensors[1] != tensors[2]


def test_bf16_halves_the_memory_and_keeps_a_float32_adapter(settings):
    half = replace(settings, precision="bf16", max_steps=2)
    assert plan(half).memory.weights * 2 == plan(settings).memory.weights
    train(half)
    assert {tensor.dtype for tensor in load_file(Path(settings.out, "adapter_model.safetensors")).values()} == {
        torch.float32
    }


def wrong(settings, tmp_path) -> list[tuple[dict, str]]:
    file = tmp_path / "file"
    file.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "note").write_text("mine")
    empty = write_rows(tmp_path / "empty.jsonl", [])
    return [
        ({"model": None}, "setting model is missing; give --model"),
        ({"data": None}, "setting data is missing"),
        ({"out": None}, "setting out is missing"),
        ({"model": str(tmp_path / "nowhere")}, "nowhere"),
        ({"model": "somebody/some-model"}, "hub is unreachable"),
        ({"data": str(tmp_path / "nowhere.jsonl")}, "There is no file .*nowhere.jsonl"),
        ({"data": str(empty)}, "empty.jsonl holds no rows"),
        ({"site": "post_blok"}, "did you mean 'post_block'"),
        ({"layers": (3,)}, "(?i)layer 3 is out of range.*3 blocks"),
        ({"layers": ("2:5",)}, "out of range: the model has 3 blocks"),
        ({"rank": 0}, "rank must be"),
        ({"rank": 33}, "rank 33 is above the site's width 32"),
        ({"max_length": 3}, "Every row is longer than max_length 3"),
        ({"out": str(file)}, "file is a file; give a new or empty folder"),
        ({"out": str(full)}, "full is not empty; give a new or empty folder, since nothing is overwritten"),
        ({"eval_share": 0.001}, "of 40 rows leaves none for training or for evaluation"),
        ({"eval_share": 0.1, "eval_data": settings.data}, "give one of them"),
    ]


@pytest.mark.parametrize("verb", [train, plan])
def test_wrong_inputs_raise_before_anything_is_written(settings, tmp_path, verb):
    for change, message in wrong(settings, tmp_path):
        with pytest.raises(ActshiftError, match=message):
            verb(replace(settings, **change))
        assert not Path(settings.out).exists(), change


def test_model_without_a_language_head_raises(settings, tmp_path):
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert load_config(str(folder)).model_type == "vit"
    with pytest.raises(ActshiftError, match="vit"):
        plan(replace(settings, model=str(folder)))


def test_each_method_trains_the_planned_parameters_and_saves_a_result(chosen: TrainSettings, method: str) -> None:
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


def test_full_training_saves_a_transformers_model(settings: TrainSettings) -> None:
    result = train(replace(settings, method="full", max_steps=2))
    assert result.fit.share == 1
    model, tokenizer = load_model(str(settings.out))
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert tokenizer.eos_token == "</s>"
    card = Path(str(settings.out), "README.md").read_text()
    assert "library_name: transformers" in card and "adapter" not in card.split("## Training")[0]


def test_full_training_in_bf16_keeps_float32_weights(settings: TrainSettings) -> None:
    """Updates this small would be rounded away in bf16, whose numbers are 0.4 % apart."""
    train(replace(settings, method="full", precision="bf16", max_steps=2, learning_rate=1e-5))
    after = load_file(Path(str(settings.out), "model.safetensors"))
    before = load_file(Path(str(settings.model), "model.safetensors"))
    changes = [float((tensor - before[name]).abs().max()) for name, tensor in after.items()]
    assert all(0 < change < 1e-4 for change in changes)


def test_lora_saves_a_plain_peft_adapter_that_merges(settings: TrainSettings) -> None:
    train(replace(settings, **METHODS["lora"]))
    config = json.loads(Path(str(settings.out), "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 2)
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    before = base(IDS).logits
    adapted = PeftModel.from_pretrained(base, str(settings.out)).eval()
    after = adapted(IDS).logits
    assert not torch.allclose(before, after)
    torch.testing.assert_close(adapted.merge_and_unload()(IDS).logits, after)


def test_lora_learning_rate_changes_only_lora(settings: TrainSettings, tmp_path: Path) -> None:
    joint = replace(settings, method="joint", max_steps=1, warmup=0, orthogonality="none", learning_rate=1e-2)
    for name, rate in (("same", None), ("slow", 1e-4)):
        train(replace(joint, lora_learning_rate=rate, out=str(tmp_path / name)))
    same, slow = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("same", "slow"))
    for name, tensor in same.items():
        if "lora_steer.up" in name:
            assert torch.equal(tensor, slow[name])
        if "lora_B" in name:  # it starts at zero, and Adam's first step is the learning rate
            torch.testing.assert_close(tensor, slow[name] * 100)


def test_saved_joint_adapter_satisfies_the_orthogonality_constraint(settings: TrainSettings) -> None:
    train(replace(settings, method="joint"))
    tensors = load_file(Path(str(settings.out), "adapter_model.safetensors"))
    for layer in range(3):
        [down] = [tensors[name] for name in tensors if f"layers.{layer}.actshift.lora_steer.down" in name]
        [written] = [tensors[name] for name in tensors if f"layers.{layer}.mlp.down_proj.lora_B" in name]
        basis, _ = torch.linalg.qr(written.double())  # of full rank: eight columns of 32 numbers that training moved
        shares = (down.double() @ basis).norm(dim=1) / down.double().norm(dim=1)
        assert written.abs().max() > 1e-4 and shares.max() <= 1e-5


@pytest.mark.parametrize("every", ["3", "epoch"])
def test_constraint_with_a_long_period_holds_in_the_saved_file(settings: TrainSettings, every: str) -> None:
    from actshift.tuner import orthogonality_violations

    train(replace(settings, method="joint", max_steps=4, orthogonality_every=every))
    model = load_adapter(AutoModelForCausalLM.from_pretrained(settings.model), str(settings.out))
    assert max(orthogonality_violations(model).values()) <= 1e-5


def test_saved_jola_gates_are_binary_and_annealed_over_the_run(settings: TrainSettings) -> None:
    train(replace(settings, **METHODS["jola"]))
    adapter = json.loads(Path(str(settings.out), "adapter_config.json").read_text())["adapter"]
    assert adapter["anneal_steps"] == settings.max_steps
    model = load_adapter(AutoModelForCausalLM.from_pretrained(settings.model), str(settings.out)).train()
    assert torch.equal(model(IDS).logits, model(IDS).logits)  # no gate is drawn any more


@pytest.mark.parametrize(
    ("changes", "message"),
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
        ({"adapter": "lofit", "lofit_heads": 13}, "lofit_heads is 13, but the steered blocks have only 12; lower it"),
        ({"adapter": "lofit", "max_steps": 1}, "two phases, and 1 step is too few"),
        ({"adapter": "lofit", "site": "post_block"}, "steers heads.*attention_heads"),
        ({"method": "joint", "adapter": "lofit"}, "cannot be combined with LoRA"),
        ({"method": "joint", "orthogonality_every": "weekly"}, "every must be a number of optimiser steps from 1 up"),
        ({"method": "joint", "lora_targets": ("q_proj",)}, "nothing to be orthogonal to"),
        (
            {"method": "joint", "orthogonality_penalty": 0.1, "orthogonality_every": "2"},
            "cannot be combined with every=2",
        ),
        ({"method": "lora", "lora_targets": ("nope",)}, "LoRA does not fit LlamaForCausalLM: .*nope"),
        ({"positions": "ends", "first_tokens": 0, "last_tokens": 0}, "steers no token"),
    ],
)
@pytest.mark.parametrize("verb", [train, plan])
def test_conflicting_settings_raise_before_anything_is_written(settings, verb, changes, message) -> None:
    with pytest.raises(ActshiftError, match=message):
        verb(replace(settings, **changes))
    assert not Path(settings.out).exists()


def test_a_run_loads_the_models_config_and_builds_its_adapter_config_once(settings, monkeypatch) -> None:
    counts = {"load_config": 0, "SteeringConfig": 0}

    def count(owner: object, attribute: str, name: str) -> None:
        original = getattr(owner, attribute)

        def counting(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, counting)

    count(actshift.loading, "load_config", "load_config")
    count(SteeringConfig, "__post_init__", "SteeringConfig")
    train(replace(settings, max_steps=1))
    assert counts == {"load_config": 1, "SteeringConfig": 1}
