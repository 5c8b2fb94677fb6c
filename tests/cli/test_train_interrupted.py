"""Runs of `actshift train` that stop early by a full disk, Ctrl-C or SIGKILL, and how they continue."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actshift.training.rewards import RewardError
from actshift.training.trainer import Checkpoints
from tests.characters import sums, write_rows
from tests.cli.conftest import Run, override, start_process, wait_for_file
from tests.disks import small_disk
from tests.training.helpers import Killed

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"]


@pytest.fixture
def command(character_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a short run into the folder `out`."""
    rows = write_rows(tmp_path / "sums.jsonl", sums(40))

    def build(*more: object, out: Path) -> list[str]:
        start = f"train --model {character_model} --data {rows} --out {out} --max-steps 10 --save-steps 2"
        return [str(word) for word in override([*start.split(), "--learning-rate", 0.01, "--batch-size", 4], *more)]

    return build


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture(name="small_disk")
def disk_of_a_size(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of the given size, and return its folder."""
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(small_disk(tmp_path / "disk", size))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(refused, command, small_disk) -> None:
    disk = small_disk("100k")
    assert "run has 0 MB free, and checkpoints need about 1 MB" in refused(*command(out=disk / "run"))
    assert names(disk) == []


@pytest.mark.slow
@pytest.mark.parametrize("full_at", [4, 10], ids=["in mid-run", "at the end"])
def test_a_run_that_fills_the_disk_fails_with_one_line_and_can_continue(
    actshift: Run, command, small_disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full_at: int
) -> None:
    assert actshift(*command(out=tmp_path / "whole")).code == 0
    disk = small_disk("2m")
    mark_complete = Checkpoints.on_save

    def mark_and_fill(self, args, state, control, **kwargs) -> None:
        mark_complete(self, args, state, control, **kwargs)
        if state.global_step == full_at:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_save", mark_and_fill)
        code, out, err = actshift(*command(out=disk / "run"))
    messages = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert (code, out, len(messages)) == (2, "", 1), err
    assert f"No space is left on the disk of {disk / 'run'}; free some space and continue with --resume" in messages[0]
    assert names(disk / "run") == ["checkpoints"]
    assert all((path / "complete.json").is_file() for path in (disk / "run").glob("checkpoints/checkpoint-*"))
    (disk / "filler").unlink()
    assert actshift("train", "--out", disk / "run", "--resume").code == 0
    assert names(disk / "run") == FILES
    assert weights(disk / "run") == weights(tmp_path / "whole")


def test_ctrl_c_before_the_first_step_writes_nothing(refused, command, monkeypatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actshift.loading.load_model", interrupt)
    assert "Interrupted before the first step; nothing was written." in refused(*command(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ctrl_c_tells_how_to_continue_and_that_works(actshift: Run, command, tmp_path: Path) -> None:
    run, long = tmp_path / "a run", ("--max-steps", 100, "--save-steps", 5)
    words = command(*long, out=tmp_path / "whole")
    process = start_process(*[str(run) if word == str(tmp_path / "whole") else word for word in words])
    wait_for_file(process, run, "checkpoints/checkpoint-*/complete.json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    messages = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert (process.returncode, out) == (2, "")
    assert messages == [
        f"actshift: Interrupted; continue from the last checkpoint with: actshift train --out '{run}' --resume"
    ]
    assert names(run) == ["checkpoints"]
    assert actshift("train", "--out", run, "--resume").code == 0
    assert actshift(*words).code == 0
    assert weights(run) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_bit_identical(actshift: Run, command, tmp_path: Path) -> None:
    """Kill at the start, during a save, between saves and after each resume; then leave a truncated checkpoint."""
    run, long = tmp_path / "run", ("--max-steps", 120, "--save-steps", 5, "--eval-share", 0.25)
    assert actshift(*command(*long, out=tmp_path / "whole")).code == 0
    start = command(*long, out=run)
    for moment in ("run.json", "checkpoint-10/optimizer.pt", "checkpoint-4?/complete.json", "checkpoint-1??/rng*"):
        process = start_process(*start)
        wait_for_file(process, run, f"checkpoints/{moment}")
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        start = ["train", "--out", str(run), "--resume"]
    whole = [path.parent for path in run.glob("checkpoints/checkpoint-*/complete.json")]
    newest = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-119")  # as a kill during a save leaves it, newer than every complete one
    shutil.copytree(newest, half)
    (half / "complete.json").unlink()
    (half / "optimizer.pt").write_bytes(b"half")
    assert actshift(*start).code == 0
    assert names(run) == FILES
    assert weights(run) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_elsewhere_by_another_name(actshift: Run, command, tmp_path: Path) -> None:
    """Started with relative paths; resumed with a slash at the end, from another working directory, and moved."""
    long = ("--max-steps", 60, "--save-steps", 5)
    assert actshift(*command(*long, out=tmp_path / "whole")).code == 0
    words = [word.replace(f"{tmp_path}/", "") for word in command(*long, out=tmp_path / "run")]
    process = start_process(*words, cwd=tmp_path)
    wait_for_file(process, tmp_path / "run", "checkpoints/checkpoint-*/complete.json")
    process.kill()
    process.communicate()
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    process = start_process("train", "--out", "../moved/", "--resume", "--json", cwd=tmp_path / "elsewhere")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out)["settings"]["out"] == "../moved/", err
    assert weights(tmp_path / "moved") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused_while_the_first_one_lives(refused, command, tmp_path: Path) -> None:
    words = command("--max-steps", 100_000, "--save-steps", 5, out=tmp_path / "run")
    process = start_process(*words)
    wait_for_file(process, tmp_path / "run", "checkpoints/run.json")
    for again in (words, ["train", "--out", tmp_path / "run", "--resume"]):
        assert "Another process trains in" in refused(*again)
    process.kill()
    process.communicate()
    assert "contains an unfinished run; continue it with --resume" in refused(*words)


def test_a_finished_run_that_was_moved_is_reported(actshift: Run, command, tmp_path: Path) -> None:
    assert actshift(*command(out=tmp_path / "run")).code == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    code, out, err = actshift("train", "--out", tmp_path / "moved", "--resume")
    assert code == 0 and "size on disk" in out and "already finished" in err


@pytest.mark.slow
def test_a_changed_reward_is_refused_until_it_is_restored(
    actshift: Run, refused, command, tmp_path: Path, monkeypatch
) -> None:
    """A reward that failed may be corrected, as its error says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    reward, run = tmp_path / "own_reward.py", tmp_path / "run"
    lines = "def f(completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    reward.write_text(lines)
    grpo = ("--objective", "grpo", "--reward", "own_reward:f", "--generations", 4, "--max-new-tokens", 4)

    def die(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "on_step_begin", die)
        actshift(*command(*grpo, out=run))
    reward.write_text(lines.replace("float(", "-float("))
    assert "The reward has changed since the run in" in refused("train", "--out", run, "--resume")
    reward.write_text(lines)

    def fail(self, **columns):
        raise RewardError("it failed")

    with monkeypatch.context() as patch:
        patch.setattr("actshift.training.objectives.grpo.try_rewards", lambda *args: None)
        patch.setattr("actshift.training.rewards.Reward.__call__", fail)
        assert "it failed" in actshift("train", "--out", run, "--resume").err
    reward.write_text(lines.replace("float(", "-float("))
    code, _, err = actshift("train", "--out", run, "--resume")
    assert code == 0, err
