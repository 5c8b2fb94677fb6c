"""`actshift equivalence`, `extract` and `export`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import JointConfig, LowRank, SteeringConfig, Vector, attach, load_adapter
from tests.cli.conftest import Run
from tests.contract.cases import randomise
from tests.tiny import save_adapter, save_model, word_tokenizer
from tests.zoo import example_inputs

LINEAR = LowRank(rank=2, activation=None)
WORDS = [{"text": " ".join(f"w{(7 * row + 3 * place) % 90}" for place in range(12))} for row in range(12)]


@pytest.fixture
def text(write_rows: Callable) -> Path:
    return write_rows(WORDS)


def test_equivalence_of_a_checkpoint(actshift: Run, model: Path, finetuned: Path, text: Path, tmp_path: Path) -> None:
    argv = ["equivalence", "--model", model, "--updated", finetuned, "--data", text, "--rank", 2]
    code, out, err = actshift(*argv, "--figure", tmp_path / "report.png")
    assert (code, err) == (0, "")
    assert "post-block" in out and (tmp_path / "report.png").stat().st_size > 0
    report = json.loads(actshift(*argv, "--json").out)
    assert all(layer["mlp"]["slope"] == pytest.approx(2, abs=0.1) for layer in report["layers"])


def test_equivalence_of_a_lora_needs_no_base(actshift: Run, lora: Path, text: Path) -> None:
    code, out, err = actshift("equivalence", "--updated", lora, "--data", text, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["outside"] == []


def test_equivalence_of_a_linear_adapter_is_a_weight_update(actshift: Run, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model, adapter=LINEAR, site="post_mlp")
    code, out, err = actshift("equivalence", "--adapter", adapter)
    assert (code, err) == (0, "")
    assert "model.layers.2.mlp" in out


def test_extract_writes_an_adapter_that_loads(
    actshift: Run, model: Path, finetuned: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    code, told, err = actshift(
        "extract", "--model", model, "--finetuned", finetuned, "--data", text, "--out", out, "--rank", 4, "--json"
    )
    assert (code, err) == (0, "")
    report = json.loads(told)
    assert report["kl"]["oracle"] < 1e-6 < report["kl"]["closed_form"] < report["kl"]["base"]
    assert [layer["rank"] for layer in report["layers"]] == [4, 4, 4]
    loaded = load_adapter(AutoModelForCausalLM.from_pretrained(model), str(out))
    assert loaded.peft_config["default"].adapter == LowRank(rank=4, activation=None, bias=True)
    assert actshift("inspect", out).code == 0


def test_export_writes_an_ordinary_checkpoint(actshift: Run, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model, adapter=Vector(), site="post_block")
    code, out, err = actshift("export", "--adapter", adapter, "--to", "merged", "--out", tmp_path / "merged")
    assert (code, err) == (0, "") and "an ordinary LlamaForCausalLM" in out
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    steered = load_adapter(AutoModelForCausalLM.from_pretrained(model), str(adapter)).eval()
    with torch.no_grad():
        given = [one(**example_inputs("llama")).logits for one in (plain, steered)]
    torch.testing.assert_close(*given, rtol=0, atol=1e-5)
    assert actshift("generate", "--model", tmp_path / "merged", "--prompt", "w1", "--max-new-tokens", 2).code == 0


def test_export_of_a_lora_and_of_halves(actshift: Run, model: Path, lora: Path, tmp_path: Path) -> None:
    assert actshift("export", "--adapter", lora, "--to", "merged", "--out", tmp_path / "merged").code == 0
    joint = attach(AutoModelForCausalLM.from_pretrained(model), JointConfig(r=2, steering=SteeringConfig(rank=2)))
    randomise(joint)
    joint.save_pretrained(str(tmp_path / "joint"))
    for half, kind in (("weights", "LORA"), ("activations", "ACTSHIFT")):
        out = tmp_path / half
        assert actshift("export", "--adapter", tmp_path / "joint", "--half", half, "--out", out).code == 0
        assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == kind


def test_wrong_calls_are_told_in_one_line(
    refused: Callable, model: Path, adapter: Path, finetuned: Path, lora: Path, text: Path, tmp_path: Path
) -> None:
    narrow = save_model(tmp_path / "narrow", hidden_size=16)
    other = save_model(tmp_path / "other")
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(other)
    out = tmp_path / "out"
    extract = ["extract", "--model", model, "--data", text, "--out", out]
    assert "Give --updated" in refused("equivalence", "--model", model)
    assert "Give either --data" in refused("equivalence", "--model", model, "--updated", finetuned)
    assert "which changes no weight" in refused("equivalence", "--updated", adapter, "--data", text)
    assert "is not linear" in refused("equivalence", "--adapter", adapter)
    assert "the same size" in refused(*extract, "--finetuned", narrow)
    assert "another tokenizer" in refused(*extract, "--finetuned", other)
    assert "the same weights" in refused(*extract, "--finetuned", model)
    assert (
        "no base model is given" in refused("extract", "--finetuned", finetuned, "--data", text, "--out", out).lower()
    )
    assert "32" in refused(*extract, "--finetuned", finetuned, "--rank", 33)
    assert "no unfinished extraction" in refused(*extract, "--finetuned", finetuned, "--resume")
    assert "Say what to write" in refused("export", "--adapter", adapter, "--out", out)
    assert "no form 'merge' (did you mean 'merged'?)" in refused(
        "export", "--adapter", adapter, "--out", out, "--to", "merge"
    )
    assert "the skip carries past every weight" in refused(
        "export", "--adapter", save_adapter(tmp_path / "a", model, adapter=LINEAR), "--out", out, "--to", "merged"
    )
    assert "is not a joint one" in refused("export", "--adapter", adapter, "--out", out, "--half", "weights")
    assert not out.exists()
