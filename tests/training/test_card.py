from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from actshift.cli.main import main
from actshift.training import TrainSettings, train


def test_card_explains_loading_and_records_the_training(trained, settings):
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
def test_card_describes_the_trained_weights(chosen: TrainSettings, method: str) -> None:
    train(chosen)
    expected = {
        "steering": "post-block activations by a learned `LowRank(rank=8",
        "lora": "Updates q_proj, down_proj by LoRA of rank 2, α 16.",
        "joint": 'actshift.set_halves(model, "both")',
        "full": "Every weight is fine-tuned.",
        "loreft": "LoReFT(rank=8)` at these tokens: first 2 and last 2 prompt tokens",
        "jola": "attention-heads activations by a learned `JoLA(",
        "lofit": "| heads | 3 heads (block ",
    }
    assert expected[method] in Path(str(chosen.out), "README.md").read_text()


@pytest.mark.slow
def test_command_in_the_card_reproduces_the_adapter(settings: TrainSettings, tmp_path: Path) -> None:
    train(replace(settings, bias=True, site="post_mlp", layers=(0, "-2:"), activation="none", schedule="cosine"))
    out, again = tmp_path / "run", tmp_path / "again"
    [line] = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("actshift train")]
    assert main(shlex.split(line.replace(str(out), str(again)))[1:]) == 0
    assert (again / "adapter_model.safetensors").read_bytes() == (out / "adapter_model.safetensors").read_bytes()
