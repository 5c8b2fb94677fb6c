"""`actshift compare` as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.characters import save_model, sums, write_rows
from tests.cli.conftest import Run

MAIN = "import sys; from actshift.cli.main import main; sys.exit(main())"
METHODS = """
common: {save_steps: 2}
methods:
  full: {rates: [1e-3, 3e-3]}
  vector: {rates: [1e-2, 3e-2]}
  lofit: {rates: [1e-2]}
  joint: {rates: [1e-2], lora_rates: [5e-3]}
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "characters")


@pytest.fixture
def words(model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a comparison of four methods, with two rates at most, on forty rows."""
    (tmp_path / "methods.yaml").write_text(METHODS)
    rows = write_rows(tmp_path / "sums.jsonl", sums(60))

    def typed(*more: object, out: Path) -> list[str]:
        text = (
            f"compare --model {model} --data {rows} --methods {tmp_path / 'methods.yaml'} --seeds 2 --max-steps 8 "
            f"--batch-size 4 --gradient-accumulation 1 --max-new-tokens 3"
        )
        return [*text.split(), "--out", str(out), *map(str, more)]

    return typed


def table(out: Path) -> dict:
    values = json.loads((out / "table.json").read_text())
    del values["made"]
    return values


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--methods", "vectr"], "There is no method 'vectr' (did you mean 'vector'?)"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--eval-data", "none.jsonl"], "There is no file none.jsonl."),
        (["--precision", "fp8"], "precision must be one of auto, fp32, bf16, got 'fp8'"),
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(refused, words, tmp_path: Path, more, told: str) -> None:
    assert told in refused(*words(*more, out=tmp_path / "table"))
    assert not (tmp_path / "table").exists()


def test_what_is_missing_is_told(refused) -> None:
    assert "The setting out is missing; give --out." in refused("compare")
    assert "The setting model is missing; give --model." in refused("compare", "--out", "table")


def test_a_missing_extra_is_one_line(refused, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'actshift[compare]'" in refused(*words(out=tmp_path / "table"))


@pytest.mark.slow
def test_a_dry_run_counts_and_times_and_writes_nothing(actshift: Run, words, tmp_path: Path) -> None:
    code, out, _ = actshift(*words("--dry-run", "--json", out=tmp_path / "table"))
    expected = json.loads(out)
    assert code == 0
    assert expected["cells"][:3] == ["base", "full, learning rate 0.001, seed 0", "full, learning rate 0.003, seed 0"]
    assert "vector, the learning rate chosen, seed 1" in expected["cells"]
    assert len(expected["cells"]) == 1 + sum(line["cells"] for line in expected["lines"]) == 11
    assert {line["method"]: line["trainable"] for line in expected["lines"]}["vector"] == 96
    assert expected["steps"] == 8 and expected["seconds"] > 0
    assert "at a time. Measured here" in " ".join(actshift(*words("--dry-run", out=tmp_path / "table")).out.split())
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_a_comparison_with_jobs_side_by_side(actshift: Run, words, tmp_path: Path) -> None:
    code, out, err = actshift(*words("--jobs", 2, "--json", out=tmp_path / "table"))
    assert code == 0, err
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    assert [row["state"] for row in rows.values()] == ["done"] * 4
    assert all(len(row["test"]) == 2 for row in rows.values())
    assert err.count("\n") == 15, err  # a line for each time a cell has come further
    kept = sorted(path.parts[-3] for path in (tmp_path / "table").glob("cells/*/*/weights"))
    assert kept == ["joint", "joint", "lofit", "lofit", "vector", "vector"]
    code, out, err = actshift(*words("--jobs", 2, out=tmp_path / "table"))
    assert (code, err) == (0, "")
    assert "LoFiT" in out
    assert "table.md, table.json, table.png" in out


@pytest.mark.slow
def test_killed_three_times_it_comes_to_the_same_table(actshift: Run, words, tmp_path: Path) -> None:
    """Killed as the first cell trains, between a record and the test, and in mid-run of LoFiT's second phase."""
    out, whole = tmp_path / "table", tmp_path / "whole"
    assert actshift(*words(out=whole)).code == 0
    for moment in (
        "cells/full/*/weights/checkpoints/checkpoint-4/complete.json",
        "cells/vector/lr-0.03-seed-0/record.json",
        "cells/lofit/*/weights/checkpoints/checkpoint-2/complete.json",
    ):
        process = _start(words(out=out))
        _wait_for(process, out, moment)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "table.json").exists()
    assert actshift(*words(out=out)).code == 0
    assert table(out) == table(whole)
    adapters = [path.relative_to(whole) for path in whole.glob("cells/*/*/weights/adapter_model.safetensors")]
    assert len(adapters) == 6
    assert all((out / path).read_bytes() == (whole / path).read_bytes() for path in adapters)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_a_second_comparison_in_one_folder_is_refused(refused, words, tmp_path) -> None:
    out = tmp_path / "a table"
    process = _start(words("--jobs", 2, out=out))
    _wait_for(process, out, "cells/full/*/weights/checkpoints/run.json")
    assert "Another comparison is running in" in refused(*words(out=out))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    said = err.splitlines()[-1]
    assert said.startswith("actshift: Interrupted; ")
    assert "of 11 cells are done. Go on with the same command: actshift compare --model" in said
    assert f"--out '{out}' " in said and "Traceback" not in err


def _start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(process: subprocess.Popen[str], out: Path, pattern: str) -> None:
    while not list(out.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
