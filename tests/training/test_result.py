from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file

from actshift.demo import BASE_DIR
from actshift.demo.task import make_rows
from actshift.training import TrainResult, TrainSettings, train
from tests.characters import write_rows


def test_metrics_contain_the_result_and_the_settings(trained, settings):
    metrics = json.loads(Path(settings.out, "metrics.json").read_text())
    assert TrainResult.from_dict(metrics) == trained
    assert metrics["eval_loss"] < metrics["train_loss"] + 10 and metrics["rows"] == 30
    assert metrics["settings"]["learning_rate"] == settings.learning_rate


def test_folder_is_less_than_ten_percent_larger_than_its_tensors(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", make_rows("train", 8))
    out = tmp_path / "run"
    # The text files name paths and have a fixed size. Rank 32 makes the tensors large enough to dominate.
    result = train(TrainSettings(model=str(BASE_DIR), data=str(data), out=str(out), rank=32, max_steps=1))
    tensors = load_file(out / "adapter_model.safetensors").values()
    assert result.folder_bytes < 1.1 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_adapter_can_be_pushed_with_peft(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    train(replace(settings, max_steps=1))
    model = AutoPeftModelForCausalLM.from_pretrained(str(settings.out))
    assert type(model).push_to_hub is PeftModel.push_to_hub
    sent: dict[str, bytes] = {}

    def commit(api: HfApi, repo_id: str, operations: list[CommitOperationAdd], **_: object) -> None:
        for operation in operations:
            with operation.as_file() as file:
                sent[operation.path_in_repo] = file.read()

    monkeypatch.setattr(HfApi, "create_repo", lambda api, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "create_commit", commit)
    monkeypatch.setattr(ModelCard, "load", lambda *_, **__: ModelCard("---\nlibrary_name: peft\n---\n"))
    model.push_to_hub("somebody/adapter")
    assert sent.keys() >= {"adapter_config.json", "adapter_model.safetensors"}
    assert sent["adapter_model.safetensors"] == Path(str(settings.out), "adapter_model.safetensors").read_bytes()


def test_metrics_of_older_versions_are_read_under_their_current_names(trained, settings):
    values = json.loads(Path(settings.out, "metrics.json").read_text())
    old = {
        "reward at the start": 0.1,
        "reward": 0.3,
        "reward, held-out rows": 0.2,
        "preferred right at the start": 0.5,
        "preferred right": 0.9,
        "preferred right, held-out rows": 0.8,
    }
    current = TrainResult.from_dict({**values, "figures": old})
    assert current.fit.figures == {
        "reward_start": 0.1,
        "reward": 0.3,
        "eval_reward": 0.2,
        "preference_accuracy_start": 0.5,
        "preference_accuracy": 0.9,
        "eval_preference_accuracy": 0.8,
    }
    assert TrainResult.from_dict(current.to_dict()) == current
