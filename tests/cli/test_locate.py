"""`actshift locate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import PAIRS, Run


@pytest.fixture
def data(write_rows) -> Path:
    return write_rows(PAIRS)


def test_a_budget_buys_interventions_that_train_accepts(actshift: Run, model: Path, data: Path, tmp_path: Path) -> None:
    bought, picture = tmp_path / "bought.json", tmp_path / "where.png"
    code, out, _ = actshift(
        "locate", "--model", model, "--data", data, "--rank", 2, "--budget", 320, "--out", bought, "--figure", picture
    )
    assert code == 0
    for word in ("post_block", "q_proj", "±", "The budget buys 320 parameters"):
        assert word in out
    interventions = json.loads(bought.read_text())["interventions"]
    ranks = [chosen["adapter"]["rank"] * len(chosen["layers"]) for chosen in interventions]
    assert 64 * sum(ranks) == 320
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = actshift("train", "--model", model, "--data", data, "--out", tmp_path / "run", "--dry-run",
                            "--interventions", bought, "--init", "gradient")  # fmt: skip
    assert (code, err) == (0, "")


def test_json_has_the_gains_of_each_place_and_the_chosen_config(actshift: Run, model: Path, data: Path) -> None:
    code, out, _ = actshift(
        "locate", "--model", model, "--data", data, "--site", "post_mlp", "--no-weights", "--budget", 0.01, "--json"
    )
    values = json.loads(out)
    assert code == 0
    assert {place["site"] for place in values["places"]} == {"post_mlp"}
    assert values["groups"] == 8 and values["steering"]


def test_gains_are_measured_with_the_adapter_active(actshift: Run, adapter: Path, data: Path) -> None:
    code, out, _ = actshift("locate", "--adapter", adapter, "--data", data, "--site", "post_block", "--json")
    assert code == 0
    assert json.loads(out)["places"][0]["gains"]["1"]["gain"] > 0


def test_invalid_options_fail_with_one_line(refused, model: Path, data: Path, write_rows, tmp_path: Path) -> None:
    start = ("locate", "--model", model, "--data", data)
    assert "did you mean 'post_block'" in refused(*start, "--site", "post_blok")
    assert "above the site's width 32" in refused(*start, "--rank", 33)
    assert "buys nothing" in refused(*start, "--budget", 3)
    assert "got -1.0" in refused(*start, "--budget", -1)
    assert "Add --budget" in refused(*start, "--out", tmp_path / "bought.json")
    assert "There is no folder" in refused(*start, "--figure", tmp_path / "none" / "where.png")
    assert "There is no file" in refused("locate", "--model", model, "--data", "none.jsonl")
    assert "No model is given" in refused("locate", "--data", data)
    assert "holds no rows" in refused("locate", "--model", model, "--data", write_rows([]))
