"""`actshift equivalence` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actshift import LowRank
from tests.cli.conftest import TEXTS, Run
from tests.tiny import save_adapter


@pytest.fixture
def text(write_rows) -> Path:
    return write_rows(TEXTS)


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
    linear = LowRank(rank=2, activation=None)
    adapter = save_adapter(tmp_path / "adapter", model, adapter=linear, site="post_mlp")
    code, out, err = actshift("equivalence", "--adapter", adapter)
    assert (code, err) == (0, "")
    assert "model.layers.2.mlp" in out


def test_invalid_options_fail_with_one_line(
    refused, model: Path, adapter: Path, finetuned: Path, text: Path, tmp_path: Path
) -> None:
    assert "Give either --updated" in refused("equivalence", "--model", model)
    assert "Give either --updated" in refused("equivalence", "--updated", finetuned, "--adapter", adapter)
    assert "takes no --data" in refused("equivalence", "--adapter", adapter, "--data", text)
    assert "Give either --data" in refused("equivalence", "--model", model, "--updated", finetuned)
    assert "which changes no weight" in refused("equivalence", "--updated", adapter, "--data", text)
    assert "is not linear" in refused("equivalence", "--adapter", adapter)
