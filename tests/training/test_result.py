"""The folder that a run leaves: its size, who may read it, and how it gets to the hub."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file

from actshift.cli.main import main
from actshift.demo import BASE_DIR
from actshift.demo.task import make_rows
from actshift.training import TrainSettings, train
from tests.characters import write_rows

FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"}


def test_the_folder_is_little_larger_than_its_tensors(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", make_rows("train", 8))
    out = tmp_path / "run"
    # The files of text (card, metrics, config) name paths, so their few kilobytes grow with those: a rank that makes
    # the tensors as large as they are in earnest keeps the ratio about the tensors.
    result = train(TrainSettings(model=str(BASE_DIR), data=str(data), out=str(out), rank=32, max_steps=1))
    tensors = load_file(out / "adapter_model.safetensors").values()
    assert result.folder_bytes < 1.1 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_reads_the_adapter(settings: TrainSettings, umask: int) -> None:
    before = os.umask(umask)
    try:
        train(replace(settings, max_steps=1))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(str(settings.out)).iterdir()}
    assert modes == dict.fromkeys(FILES, 0o666 & ~umask)


def test_the_command_in_the_card_makes_the_same_adapter(settings: TrainSettings, tmp_path: Path) -> None:
    train(replace(settings, bias=True, site="post_mlp", layers=(0, "-2:"), activation="none", schedule="cosine"))
    out, again = tmp_path / "run", tmp_path / "again"
    [line] = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("actshift train")]
    assert main(shlex.split(line.replace(str(out), str(again)))[1:]) == 0
    assert (again / "adapter_model.safetensors").read_bytes() == (out / "adapter_model.safetensors").read_bytes()


def test_it_goes_to_the_hub_by_pefts_own_push(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
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
