"""`actshift compare` as a user types it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.characters import sums, write_rows
from tests.cli.conftest import Run, override, start_process, wait_for_file

METHODS = """
common: {save_steps: 2}
methods:
  full: {rates: [1e-3, 3e-3]}
  vector: {rates: [1e-2, 3e-2]}
  lofit: {rates: [1e-2]}
  joint: {rates: [1e-2], lora_rates: [5e-3]}
"""


@pytest.fixture
def command(character_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a comparison of four methods, with at most two rates, on sixty rows."""
    (tmp_path / "methods.yaml").write_text(METHODS)
    rows = write_rows(tmp_path / "sums.jsonl", sums(60))

    def build(*more: object, out: Path) -> list[str]:
        text = (
            f"compare --model {character_model} --data {rows} --seeds 2 --methods {tmp_path / 'methods.yaml'} "
            f"--max-steps 8 --batch-size 4 --gradient-accumulation 1 --max-new-tokens 3"
        )
        return [*text.split(), "--out", str(out), *map(str, more)]

    return build


def table(out: Path) -> dict:
    values = json.loads((out / "table.json").read_text())
    del values["made"]
    return values


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "vectr"], "There is no method 'vectr' (did you mean 'vector'?)"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--eval-data", "none.jsonl"], "There is no file none.jsonl."),
        (["--precision", "fp8"], "precision must be one of auto, fp32, bf16, got 'fp8'"),
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_written(
    refused, command, tmp_path: Path, more, message
) -> None:
    assert message in refused(*override(command(out=tmp_path / "table"), *more))
    assert not (tmp_path / "table").exists()


def test_a_missing_setting_is_named(refused) -> None:
    assert "The setting out is missing; give --out." in refused("compare")
    assert "The setting model is missing; give --model." in refused("compare", "--out", "table")


def test_a_missing_extra_is_refused_with_the_command_that_installs_it(
    refused, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'actshift[compare]'" in refused(*command(out=tmp_path / "table"))


@pytest.mark.slow
def test_a_dry_run_estimates_cells_and_time_and_writes_nothing(actshift: Run, command, tmp_path: Path) -> None:
    code, out, _ = actshift(*command("--dry-run", "--json", out=tmp_path / "table"))
    expected = json.loads(out)
    assert code == 0
    assert expected["cells"][:3] == ["base", "full, learning rate 0.001, seed 0", "full, learning rate 0.003, seed 0"]
    assert "vector, the learning rate chosen, seed 1" in expected["cells"]
    assert len(expected["cells"]) == 1 + sum(line["cells"] for line in expected["lines"]) == 11
    assert {line["method"]: line["trainable"] for line in expected["lines"]}["vector"] == 96
    assert expected["steps"] == 8 and expected["seconds"] > 0
    assert "at a time. Measured here" in " ".join(actshift(*command("--dry-run", out=tmp_path / "table")).out.split())
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_a_comparison_with_two_jobs(actshift: Run, command, tmp_path: Path) -> None:
    code, out, err = actshift(*command("--jobs", 2, "--json", out=tmp_path / "table"))
    assert code == 0, err
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    assert [row["state"] for row in rows.values()] == ["done"] * 4
    assert all(len(row["test"]) == 2 for row in rows.values())
    assert err.count("\n") == 15, err  # one line per event of a cell
    kept = sorted(path.parts[-3] for path in (tmp_path / "table").glob("cells/*/*/weights"))
    assert kept == ["joint", "joint", "lofit", "lofit", "vector", "vector"]
    code, out, err = actshift(*command("--jobs", 2, out=tmp_path / "table"))
    assert (code, err) == (0, "")
    assert "LoFiT" in out
    assert "table.md, table.json, table.png" in out


@pytest.mark.slow
def test_a_comparison_killed_three_times_gives_the_same_table(actshift: Run, command, tmp_path: Path) -> None:
    """Kill while the first cell trains, between a record and the test, and in the second phase of LoFiT."""
    out, whole = tmp_path / "table", tmp_path / "whole"
    assert actshift(*command(out=whole)).code == 0
    for moment in (
        "cells/full/*/weights/checkpoints/checkpoint-4/complete.json",
        "cells/vector/lr-0.03-seed-0/record.json",
        "cells/lofit/*/weights/checkpoints/checkpoint-2/complete.json",
    ):
        process = start_process(*command(out=out))
        wait_for_file(process, out, moment)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "table.json").exists()
    assert actshift(*command(out=out)).code == 0
    assert table(out) == table(whole)
    adapters = [path.relative_to(whole) for path in whole.glob("cells/*/*/weights/adapter_model.safetensors")]
    assert len(adapters) == 6
    assert all((out / path).read_bytes() == (whole / path).read_bytes() for path in adapters)


@pytest.mark.slow
def test_ctrl_c_tells_how_to_continue_and_a_second_comparison_in_the_folder_is_refused(
    refused, command, tmp_path
) -> None:
    out = tmp_path / "a table"
    process = start_process(*command("--jobs", 2, out=out))
    wait_for_file(process, out, "cells/full/*/weights/checkpoints/run.json")
    assert "Another comparison is running in" in refused(*command(out=out))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    message = err.splitlines()[-1]
    assert message.startswith("actshift: Interrupted; ")
    assert "of 11 cells are done. Continue with the same command: actshift compare --model" in message
    assert f"--out '{out}' " in message and "Traceback" not in err
