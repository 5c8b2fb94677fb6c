"""`actshift report`, as a user types it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from actshift import JointConfig, LowRank, SteeringConfig, attach
from tests.cli.conftest import PAIRS, Run, override
from tests.contract.cases import randomise
from tests.tiny import save_model


@pytest.fixture(scope="module")
def joint(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint") / "joint"
    config = JointConfig(r=2, steering=SteeringConfig(adapter=LowRank(rank=2)), target_modules=["down_proj"])
    adapted = attach(AutoModelForCausalLM.from_pretrained(model), config)
    randomise(adapted)
    adapted.save_pretrained(str(folder))
    return folder


@pytest.fixture
def argv(write_rows: Callable, tmp_path: Path) -> list[object]:
    return ["report", "--data", write_rows(PAIRS), "--out", tmp_path / "report.html", "--rank", 2]


def keys(out: str) -> list[str]:
    return [section["key"] for section in json.loads(out)["sections"]]


def test_the_page_of_a_model_alone(actshift: Run, argv: list, model: Path, tmp_path: Path) -> None:
    code, out, err = actshift(*argv, "--model", model)
    assert (code, err) == (0, "")
    assert "Where to steer: Give more rows" in out  # a random model on random words
    assert out.endswith(f"figures   {tmp_path / 'report-figures'}\n")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"--model {model}" in page and "20 rows, " in page and str(argv[2]) in page
    assert (tmp_path / "report-figures" / "gain.svg").is_file()


@pytest.mark.slow
def test_the_page_of_a_finetuned_model_and_a_joint_adapter(
    actshift: Run, argv: list, model: Path, finetuned: Path, joint: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "pictures"
    code, out, _ = actshift(
        *argv, "--model", model, "--finetuned", finetuned, "--adapter", joint, "--figures", figures, "--json"
    )
    assert code == 0
    assert keys(out) == ["where", "maps", "gain", "skip", "remainder", "oracle", "halves"]
    assert json.loads(out)["about"].keys() == {"model", "fine-tuned", "adapter", "data"}
    assert len(list(figures.glob("*.png"))) == len(list(figures.glob("*.svg"))) == 7


@pytest.mark.slow
def test_the_base_and_the_sections_follow_from_the_adapter(
    actshift: Run, argv: list, joint: Path, adapter: Path, lora: Path
) -> None:
    assert "halves" in keys(actshift(*argv, "--adapter", joint, "--json").out)
    assert "remainder" in keys(actshift(*argv, "--adapter", lora, "--json").out)
    steered = json.loads(actshift(*argv, "--adapter", adapter, "--json").out)
    assert [section["key"] for section in steered["sections"]] == ["where", "maps", "gain"]


@pytest.mark.slow
def test_gains_are_measured_with_a_steering_adapter_active(
    actshift: Run, argv: list, model: Path, adapter: Path
) -> None:
    bare, steered = (
        json.loads(actshift(*argv, *more, "--json").out)["locate"]["loss"]
        for more in (("--model", model), ("--adapter", adapter))
    )
    assert bare != steered


def test_invalid_options_fail_with_one_line_and_write_nothing(
    refused,
    argv: list,
    model: Path,
    finetuned: Path,
    adapter: Path,
    joint: Path,
    lora: Path,
    tmp_path: Path,
    write_rows,
) -> None:
    start = [*argv, "--model", model]
    assert "There is no folder" in refused(*override(start, "--out", tmp_path / "none" / "report.html"))
    assert "There is no folder" in refused(*start, "--figures", tmp_path / "none" / "figures")
    (tmp_path / "taken").write_text("")
    assert "is a file, and the figures need a folder" in refused(*start, "--figures", tmp_path / "taken")
    assert "rank 33 is above" in refused(*override(start, "--rank", 33))
    assert "is a LoRA, which is analysed as a fine-tuned model. Leave out --adapter or --finetuned." in refused(
        *start, "--finetuned", finetuned, "--adapter", lora
    )
    assert "only steers" in refused(*start, "--finetuned", finetuned, "--adapter", adapter)
    assert "changes no weight" in refused(*start, "--finetuned", adapter, "--adapter", joint)
    assert "the same weights" in refused(*start, "--finetuned", model)
    wide = save_model(tmp_path / "wide", hidden_size=64)
    assert "of the same size" in refused(*start, "--finetuned", wide)
    assert "No model is given" in refused(*argv)
    assert "holds no rows" in refused(
        "report", "--model", model, "--data", write_rows([]), "--out", tmp_path / "r.html"
    )
    assert not (tmp_path / "report.html").exists()


def test_a_missing_matplotlib_is_reported_first(refused, argv: list, model: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'actshift[plot]'" in refused(*argv, "--model", model)
