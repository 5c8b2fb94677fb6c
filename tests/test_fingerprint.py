from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from actshift import ActshiftError, fingerprint
from actshift.fingerprint import changed, fingerprint_model, hash_source, versions
from tests.tiny import save_model


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("fingerprint") / "model")


@pytest.fixture
def model(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def flip_last_byte(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def write(name: str, text: str = "x"):
    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return edit


@pytest.mark.parametrize(
    "edit, parts",
    [
        (flip_last_byte, ["weights"]),
        (write("model-00002-of-00002.safetensors"), ["weights"]),
        (write("config.json"), ["config"]),
        (write("generation_config.json", '{"temperature": 0.1}'), ["config"]),
        (write("merges.txt"), ["tokenizer"]),
        (write("additional_chat_templates/tools.jinja"), ["chat template"]),
        (lambda folder: (folder / "tokenizer.json").unlink(), ["tokenizer"]),
        (write("README.md"), []),
        (write("training_args.bin"), []),
        (lambda folder: (folder / "model.safetensors").touch(), []),
    ],
)
def test_changes_of_a_model_are_found(model, edit, parts):
    before = fingerprint_model(model)
    edit(model)
    assert changed(before, fingerprint_model(model)) == parts


def test_code_counts_only_if_the_config_refers_to_it(model):
    before = fingerprint_model(model)
    write("own_reward.py")(model)
    assert fingerprint_model(model) == before
    write("config.json", '{"auto_map": {"AutoModel": "own.Model"}}')(model)
    before = fingerprint_model(model)
    write("own_reward.py", "y")(model)
    assert changed(before, fingerprint_model(model)) == ["code"]


def test_copy_has_the_same_fingerprint(original, model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert fingerprint_model(original) == fingerprint_model(model) == fingerprint_model("model/")


@pytest.mark.parametrize("name", ["layers.3.norm", "head"])
def test_large_weights_are_sampled_and_a_training_step_is_found(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fingerprint, "WHOLE", 10**6)
    tensors = {f"layers.{i}.up": torch.zeros(1000, 100) for i in range(20)} | {"layers.3.norm": torch.ones(64)}
    tensors["head"] = torch.zeros(2000, 1000)
    save_file(tensors, tmp_path / "model.safetensors")
    before, start = fingerprint_model(tmp_path), time.monotonic()
    assert fingerprint_model(tmp_path) == before and time.monotonic() - start < 0.5
    tensors[name] += 1e-3
    save_file(tensors, tmp_path / "model.safetensors")
    assert changed(before, fingerprint_model(tmp_path)) == ["weights"]


@pytest.mark.parametrize("content", [b"", b"\x10" + bytes(7) + b"[" * 16, b"\xff" * 64, bytes(99)])
def test_malformed_weights_have_a_fingerprint(tmp_path, monkeypatch, content):
    """Loading the model explains what is wrong."""
    monkeypatch.setattr(fingerprint, "WHOLE", -1)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert fingerprint_model(tmp_path).keys() == {"weights"}


def test_hub_model_is_known_by_its_commit(tmp_path, monkeypatch):
    cached = tmp_path / "models--some--base" / "snapshots" / "abc123" / "config.json"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name, revision: str(cached))
    assert fingerprint_model("some/base", "v2") == {"commit": "abc123"}


@pytest.mark.parametrize("source", ["some/base", "a b//c", "", "no\x00id"])
def test_unknown_model_has_no_fingerprint(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fingerprint_model(source or "none") == {}


def test_source_is_a_file_or_an_adapter(tmp_path):
    task = tmp_path / "task.yaml"
    task.write_text("a: 1")
    before = hash_source(str(task))
    task.write_text("a: 2")
    assert before != hash_source(str(task)) and hash_source("gsm8k") is hash_source(None) is None
    (tmp_path / "adapter_config.json").write_text("{}")
    before = hash_source(str(tmp_path))
    (tmp_path / "README.md").write_text("x")
    assert hash_source(str(tmp_path)) == before
    (tmp_path / "adapter_model.safetensors").write_text("x")
    assert hash_source(str(tmp_path)) != before


def test_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ActshiftError, match=r"config\.json cannot be read: Permission denied"):
        fingerprint_model(tmp_path)


def test_versions_name_all_packages_that_decide_a_result():
    assert json.dumps(versions()) and versions().keys() == {"python", *fingerprint.PACKAGES}
