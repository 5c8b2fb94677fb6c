"""A model, adapters and data on disk, and the command line: in this process, or in a process to interrupt."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import Vector
from actshift.cli.main import main
from actshift.tuner.loading import lora_model
from tests import characters
from tests.analysis.twins import moved
from tests.tiny import save_adapter, save_model, word_tokenizer
from tests.zoo import ARCHITECTURES

PROMPTS = ["w1 w2 w3", "w40", "w9 w8 w7 w6 w5"]
PAIRS = [{"prompt": f"w{i} w{i + 1}", "completion": f"w{i + 2} w{i + 3}"} for i in range(20)]
TEXTS = [{"text": " ".join(f"w{(7 * row + 3 * place) % 90}" for place in range(12))} for row in range(12)]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def override(argv: Sequence[object], *more: object) -> list[object]:
    """Return a command with more flags, without the flags and values that they replace: each may be given once."""
    given, words = {str(word) for word in more if str(word).startswith("--")}, list(argv)
    replaced = {index for index, word in enumerate(words) if str(word) in given}
    return [word for index, word in enumerate(words) if not {index, index - 1} & replaced] + list(more)


@pytest.fixture
def actshift(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*argv: object) -> Outcome:
        capsys.readouterr()  # drop earlier output
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def refused(actshift: Run) -> Callable[..., str]:
    """Run a command that must fail with exit code 2, nothing on stdout and one line on stderr; return that line."""

    def run(*argv: object) -> str:
        code, out, err = actshift(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
        assert err.startswith("actshift: ")
        return err

    return run


def start_process(*argv: str, **options) -> subprocess.Popen[str]:
    """Start a command in its own process."""
    code = "import sys; from actshift.cli.main import main; sys.exit(main())"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", code, *argv], text=True, **streams)


def wait_for_file(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until the process has written a file that matches the pattern."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="session")
def character_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads sums digit by digit."""
    return characters.save_model(tmp_path_factory.mktemp("models") / "characters")


@pytest.fixture(scope="session")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapters") / "low-rank", model, rank=4)


@pytest.fixture(scope="session")
def vector(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapters") / "vector", model, adapter=Vector(), layers=[-1])


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetuned") / "model"
    moved(ARCHITECTURES["llama"](), 0.1, "layers.").save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "lora"
    adapted = lora_model(AutoModelForCausalLM.from_pretrained(model), r=2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    adapted.save_pretrained(str(folder))
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[Sequence[dict]], Path]:
    def write(rows: Sequence[dict]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
