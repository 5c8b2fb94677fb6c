"""`actshift extract` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from actshift import LowRank, load_adapter
from actshift.files import locked_folder
from tests.cli.conftest import TEXTS, Run
from tests.tiny import save_model, word_tokenizer


@pytest.fixture
def text(write_rows) -> Path:
    return write_rows(TEXTS)


def test_extract_writes_an_adapter_that_loads(
    actshift: Run, model: Path, finetuned: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    code, printed, err = actshift(
        "extract", "--model", model, "--finetuned", finetuned, "--data", text, "--out", out, "--rank", 4, "--json"
    )
    assert (code, err) == (0, "")
    report = json.loads(printed)
    assert report["kl"]["oracle"] < 1e-6 < report["kl"]["closed_form"] < report["kl"]["base"]
    assert [layer["rank"] for layer in report["layers"]] == [4, 4, 4]
    loaded = load_adapter(AutoModelForCausalLM.from_pretrained(model), str(out))
    assert loaded.peft_config["default"].adapter == LowRank(rank=4, activation=None, bias=True)
    assert actshift("inspect", out).code == 0


def test_invalid_options_fail_with_one_line_and_write_nothing(
    refused, model: Path, finetuned: Path, text: Path, tmp_path: Path
) -> None:
    narrow = save_model(tmp_path / "narrow", hidden_size=16)
    other = save_model(tmp_path / "other")
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(other)
    out = tmp_path / "out"
    start = ["extract", "--model", model, "--data", text, "--out", out]
    assert "the same size" in refused(*start, "--finetuned", narrow)
    assert "another tokenizer" in refused(*start, "--finetuned", other)
    assert "the same weights" in refused(*start, "--finetuned", model)
    assert "No base model is given" in refused("extract", "--finetuned", finetuned, "--data", text, "--out", out)
    assert "32" in refused(*start, "--finetuned", finetuned, "--rank", 33)
    assert "no unfinished extraction" in refused(*start, "--finetuned", finetuned, "--resume")
    assert not out.exists()


def test_a_second_process_in_the_folder_is_refused(refused, model: Path, finetuned: Path, text: Path, tmp_path) -> None:
    start = ("extract", "--model", model, "--finetuned", finetuned, "--data", text, "--out", tmp_path / "out")
    with locked_folder(tmp_path / "out", ""):
        assert "Another process extracts to" in refused(*start)
    assert not (tmp_path / "out").exists()
