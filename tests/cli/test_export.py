"""`actshift export` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from actshift import JointConfig, LowRank, SteeringConfig, Vector, attach, load_adapter
from tests.cli.conftest import Run
from tests.contract.cases import randomise
from tests.tiny import save_adapter
from tests.zoo import example_inputs


def test_export_writes_an_ordinary_checkpoint(actshift: Run, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model, adapter=Vector(), site="post_block")
    code, out, err = actshift("export", "--adapter", adapter, "--to", "merged", "--out", tmp_path / "merged")
    assert (code, err) == (0, "") and "an ordinary LlamaForCausalLM" in out
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    steered = load_adapter(AutoModelForCausalLM.from_pretrained(model), str(adapter)).eval()
    with torch.no_grad():
        logits = [loaded(**example_inputs("llama")).logits for loaded in (plain, steered)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    assert actshift("generate", "--model", tmp_path / "merged", "--prompt", "w1", "--max-new-tokens", 2).code == 0


def test_export_of_a_lora_and_of_halves(actshift: Run, model: Path, lora: Path, tmp_path: Path) -> None:
    assert actshift("export", "--adapter", lora, "--to", "merged", "--out", tmp_path / "merged").code == 0
    joint = attach(AutoModelForCausalLM.from_pretrained(model), JointConfig(r=2, steering=SteeringConfig(rank=2)))
    randomise(joint)
    joint.save_pretrained(str(tmp_path / "joint"))
    for half, peft_type in (("weights", "LORA"), ("activations", "ACTSHIFT")):
        out = tmp_path / half
        assert actshift("export", "--adapter", tmp_path / "joint", "--half", half, "--out", out).code == 0
        assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == peft_type


def test_invalid_options_fail_with_one_line_and_write_nothing(
    refused, model: Path, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start = ["export", "--adapter", adapter, "--out", out]
    linear = save_adapter(tmp_path / "linear", model, adapter=LowRank(rank=2, activation=None))
    assert "Say what to write" in refused(*start)
    assert "no form 'merge' (did you mean 'merged'?)" in refused(*start, "--to", "merge")
    assert "the skip carries past every weight" in refused(
        "export", "--adapter", linear, "--out", out, "--to", "merged"
    )
    assert "is not a joint one" in refused(*start, "--half", "weights")
    assert not out.exists()
