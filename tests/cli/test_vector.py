"""`actshift vector` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

POSITIVE = [{"text": f"w{i} w2 w3"} for i in range(4, 10)]
NEGATIVE = [{"text": f"w{i} w{i + 1} w3"} for i in range(20, 26)]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[object, ...]:
    return files(tmp_path, POSITIVE, NEGATIVE)


def files(folder: Path, positive: list[dict], negative: list[dict]) -> tuple[object, ...]:
    """Write both sets of rows to files, and return the options that name them."""
    options: list[object] = []
    for side, rows in (("positive", positive), ("negative", negative)):
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options += [f"--{side}", path]
    return tuple(options)


def test_the_saved_vector_steers_without_training(actshift: Run, model: Path, sides, tmp_path: Path) -> None:
    out, picture = tmp_path / "out", tmp_path / "vector.png"
    code, printed, _ = actshift(
        "vector", "--model", model, *sides, "--layer", -1, "--layer", "0:1", "--out", out, "--figure", picture
    )
    assert code == 0
    assert "6 positive and 6 negative rows" in printed and "which steers after block 2, 0" in printed
    assert "after block 2, 0, which points from" in (out / "README.md").read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    few = ("--prompt", "w1 w2", "--max-new-tokens", 5, "--compare", "--json")
    for strength, steers in ((0, False), (8, True)):
        [row] = json.loads(actshift("generate", "--adapter", out, "--strength", strength, *few).out)
        assert (row["adapters"][str(out)] != row["base"]) is steers
    assert "Vector()" in actshift("inspect", out).out


def test_json_of_a_direction_from_pairs_of_rows(actshift: Run, model: Path, sides, tmp_path: Path) -> None:
    options = ("--method", "pca", "--token", "mean", "--limit", 4, "--json")
    code, printed, _ = actshift("vector", "--model", model, *sides, "--out", tmp_path / "out", *options)
    values = json.loads(printed)
    assert code == 0
    assert (values["method"], values["token"], values["positive"], len(values["layers"])) == ("pca", "mean", 4, 3)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["layers"] == [1]


def test_a_calibrated_strength_is_saved_shown_and_used(actshift: Run, model: Path, sides, tmp_path: Path) -> None:
    out, chats = tmp_path / "out", tmp_path / "prompts.txt"
    chats.write_text("w1 w2\nw3 w4 w5\nw9\n")
    options = ("--model", model, *sides, "--calibrate", 0.5, "--shift", "gate", "--json")
    values = json.loads(actshift("vector", *options, "--prompts", chats, "--out", out).out)["calibration"]
    assert values["kl"] == pytest.approx(0.5, rel=0.05) and values["target_kl"] == 0.5
    assert json.loads((out / "adapter_config.json").read_text())["strength"] == values["strength"]
    assert f"--strength {values['strength']:.4g}" in (out / "README.md").read_text()
    assert "GatedVector()" in (shown := actshift("inspect", out).out) and f"strength {values['strength']:.4g}" in shown
    few = ("--prompt", "w1 w2", "--max-new-tokens", 5)
    by_default, explicit, at_1 = (
        actshift("generate", "--adapter", out, *few, *strength).out
        for strength in ((), ("--strength", values["strength"]), ("--strength", 1))
    )
    assert by_default == explicit != at_1
    outcome = actshift("vector", "--model", model, *sides, "--calibrate", 0.02, "--out", tmp_path / "second")
    assert "calibrated  strength" in outcome.out  # on the negative rows


def test_invalid_options_fail_with_one_line_and_write_nothing(
    refused, model: Path, sides, adapter: Path, tmp_path: Path
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty.txt"
    empty.write_text("")

    def line(*options: object, rows: tuple[object, ...] = sides) -> str:
        message = refused("vector", "--model", model, "--out", out, *rows, *options)
        assert not out.exists()
        return message

    assert "layer 7 is out of range" in line("--layer", 7)
    assert "'a' is neither a block's index" in line("--layer", "a")
    assert "named twice" in line("--layer", 0, "--layer", 0)
    assert "did you mean 'mean'" in line("--method", "mena")
    assert "did you mean 'last'" in line("--token", "lst")
    assert "above max_length 2" in line("--max-length", 2)
    assert "--prompts are for --calibrate" in line("--prompts", tmp_path / "none.txt")
    assert "no prompts" in line("--calibrate", 1, "--prompts", empty)
    assert "No strength up to 4096 reaches" in line("--calibrate", 1e6)
    assert "There is no folder" in line("--figure", tmp_path / "none" / "vector.png")
    assert "are the same" in line(rows=files(tmp_path, POSITIVE, POSITIVE))
    assert "holds no rows" in line(rows=files(tmp_path, [], NEGATIVE))
    assert "There is one positive row" in line(rows=files(tmp_path, POSITIVE[:1], NEGATIVE))
    assert "6 positive and 5 negative rows" in line("--method", "pca", rows=files(tmp_path, POSITIVE, NEGATIVE[:5]))
    assert "has the columns words" in line(rows=files(tmp_path, POSITIVE, [{"words": "w1"}]))
    pairs = [{"prompt": "w1", "completion": " w2"}] * 2
    assert "give both in one form" in line(rows=files(tmp_path, POSITIVE, pairs))
    sides = files(tmp_path, POSITIVE, NEGATIVE)
    assert "exists and is not empty" in refused("vector", "--model", model, *sides, "--out", adapter)
    assert "No model is given" in refused("vector", *sides, "--out", out)
    assert "is an adapter, not a model" in refused("vector", "--model", adapter, *sides, "--out", out)
