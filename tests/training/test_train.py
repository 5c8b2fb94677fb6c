from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actshift import ActshiftError
from actshift.loading import load_config
from actshift.training import TrainResult, plan, train
from actshift.training.run_folder import RunFolder
from tests.characters import write_rows


@pytest.fixture
def trained(settings) -> TrainResult:
    return train(replace(settings, eval_share=0.25, rank=32))


def test_the_folder_is_an_adapter_and_nothing_else(trained, settings):
    folder = Path(settings.out)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"
    ]  # fmt: skip
    assert trained.folder_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert trained.folder_bytes < 4 * trained.fit.trainable * 1.1 + 5000  # what is not tensors is a page of text
    base = AutoModelForCausalLM.from_pretrained(settings.model)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        before = base(ids).logits
        assert not torch.equal(PeftModel.from_pretrained(base, str(folder))(ids).logits, before)


def test_metrics_hold_the_figures_and_the_settings(trained, settings):
    metrics = json.loads(Path(settings.out, "metrics.json").read_text())
    assert TrainResult.from_dict(metrics) == trained
    assert metrics["eval_loss"] < metrics["train_loss"] + 10 and metrics["rows"] == 30
    assert metrics["settings"]["learning_rate"] == settings.learning_rate


def test_the_card_says_how_to_load_and_how_it_was_made(trained, settings):
    card = Path(settings.out, "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    assert "base_model:" not in card  # a folder of this machine is no id of the hub
    for part in (
        "import actshift",
        "KeyError",
        settings.model,
        settings.data,
        "--rank 32",
        f"{trained.fit.eval_loss:.4f}",
    ):
        assert part in card


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(settings, tmp_path):
    tensors = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(replace(settings, out=str(tmp_path / name), seed=seed, max_steps=2))
        tensors.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert tensors[0] == tensors[1] != tensors[2]


def test_bf16_computes_in_half_the_memory_and_keeps_the_adapter_in_float32(settings):
    half = replace(settings, precision="bf16", max_steps=2)
    assert plan(half).memory.weights * 2 == plan(settings).memory.weights
    train(half)
    assert {tensor.dtype for tensor in load_file(Path(settings.out, "adapter_model.safetensors")).values()} == {
        torch.float32
    }


def test_plan_foresees_the_run_and_writes_nothing(settings, trained, tmp_path):
    foreseen = plan(replace(settings, eval_share=0.25, rank=32, out=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert (foreseen.trainable, foreseen.share) == (trained.fit.trainable, trained.fit.share)
    assert (foreseen.steps, foreseen.rows, foreseen.eval_rows) == (10, 30, 10)
    assert [place.module for place in foreseen.places] == [f"model.layers.{i}" for i in range(3)]
    assert foreseen.to_dict()["memory_bytes"]["total"] == foreseen.memory.total


def test_plan_counts_the_chosen_layers_only(settings):
    assert [place.layer for place in plan(replace(settings, layers=("-2:",), adapter="vector")).places] == [1, 2]


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
        ({"eval_share": 0.001}, "leaves no row on one side"),
        ({"eval_share": 0.1, "eval_data": settings.data}, "give one of them"),
    ]


@pytest.mark.parametrize("verb", [train, plan])
def test_what_is_wrong_is_said_before_anything_is_written(settings, tmp_path, verb):
    for change, message in wrong(settings, tmp_path):
        with pytest.raises(ActshiftError, match=message):
            verb(replace(settings, **change))
        assert not Path(settings.out).exists(), change


def test_a_disk_too_small_for_checkpoints_is_said_at_once(settings, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ActshiftError, match="0 MB free, and checkpoints need about 1 MB"):
        train(settings)


def test_a_disk_that_fills_leaves_only_whole_checkpoints(tmp_path, settings, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.start(settings, "digest", resume=False)
    for step, files in ((2, ["complete.json"]), (4, ["half"])):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with (
        pytest.raises(ActshiftError, match=r"No space is left on the disk of .*run; free some space and continue"),
        run.explain_full_disk(1),
    ):
        raise RuntimeError("PytorchStreamWriter failed writing file")
    assert [folder.name for folder in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_model_that_generates_no_text_is_refused(settings, tmp_path):
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert load_config(str(folder)).model_type == "vit"
    with pytest.raises(ActshiftError, match="vit"):
        plan(replace(settings, model=str(folder)))


def test_what_a_kill_before_the_record_leaves_does_not_block_the_folder(settings):
    checkpoints = Path(settings.out, "checkpoints")
    checkpoints.mkdir(parents=True)
    RunFolder(Path(settings.out)).check(settings, resume=False)
    (checkpoints / ".run.json.7.part").touch()
    RunFolder(Path(settings.out)).check(settings, resume=False)
    (checkpoints / "mine").touch()
    with pytest.raises(ActshiftError, match="is not empty"):
        RunFolder(Path(settings.out)).check(settings, resume=False)
