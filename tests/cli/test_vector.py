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


def test_invalid_options_fail_with_one_line_and_write_nothing(
    refused, model: Path, sides, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

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
