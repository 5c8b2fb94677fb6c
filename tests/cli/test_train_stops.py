"""Runs of `actshift train` that end before their end: no space, Ctrl-C, SIGKILL; each tells how to go on, and can."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actshift.training.trainer import Checkpoints
from tests.characters import save_model, sums, write_rows
from tests.cli.conftest import Run

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"]
MAIN = "import sys; from actshift.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "characters")


@pytest.fixture
def typed(model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a short run into the folder `out`, with `more` at their end."""
    rows = write_rows(tmp_path / "sums.jsonl", sums(40))

    def words(*more: object, out: Path) -> list[str]:
        start = f"train --model {model} --data {rows} --out {out} --max-steps 10 --save-steps 2 --learning-rate 0.01"
        return [*start.split(), "--batch-size", "4", *map(str, more)]

    return words


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of the size given, and returns its folder."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: str) -> Path:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
        return disk

    yield mount
    subprocess.run(["umount", disk], capture_output=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(refused, typed, small_disk) -> None:
    disk = small_disk("100k")
    assert "run has 0 MB free, and checkpoints need about 1 MB" in refused(*typed(out=disk / "run"))
    assert names(disk) == []


@pytest.mark.slow
@pytest.mark.parametrize("full_at", [4, 10], ids=["in mid-run", "at the end"])
def test_a_disk_that_fills_in_mid_run_ends_it_in_one_line_and_it_can_go_on(
    actshift: Run, typed, small_disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full_at: int
) -> None:
    assert actshift(*typed(out=tmp_path / "whole")).code == 0
    disk = small_disk("2m")
    mark_complete = Checkpoints.on_save

    def mark_and_fill(self, args, state, control, **kwargs) -> None:
        mark_complete(self, args, state, control, **kwargs)
        if state.global_step == full_at:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_save", mark_and_fill)
        code, out, err = actshift(*typed(out=disk / "run"))
    said = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert (code, out, len(said)) == (2, "", 1), err
    assert f"No space is left on the disk of {disk / 'run'}; free some and continue with --resume" in said[0]
    assert names(disk / "run") == ["checkpoints"]
    assert all((path / "complete.json").is_file() for path in (disk / "run").glob("checkpoints/checkpoint-*"))
    (disk / "filler").unlink()
    assert actshift("train", "--out", disk / "run", "--resume").code == 0
    assert names(disk / "run") == FILES
    assert weights(disk / "run") == weights(tmp_path / "whole")


def test_ctrl_c_before_the_run_began_leaves_nothing(refused, typed, monkeypatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actshift.loading.load_model", interrupt)
    assert "Interrupted before the first step; nothing was written." in refused(*typed(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def _start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(process: subprocess.Popen[str], run: Path, pattern: str) -> None:
    while not list(run.glob(f"checkpoints/{pattern}")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_that_works(actshift: Run, typed, tmp_path: Path) -> None:
    run, long = tmp_path / "a run", ("--max-steps", 100, "--save-steps", 5)
    words = typed(*long, out=tmp_path / "whole")
    process = _start([str(run) if word == str(tmp_path / "whole") else word for word in words])
    _wait_for(process, run, "checkpoint-*/complete.json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert (process.returncode, out) == (2, "")
    assert said == [
        f"actshift: Interrupted; go on from the last checkpoint with: actshift train --out '{run}' --resume"
    ]
    assert names(run) == ["checkpoints"]
    assert actshift("train", "--out", run, "--resume").code == 0
    assert actshift(*words).code == 0
    assert weights(run) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_sigkill_at_any_moment_ends_in_the_same_bits(actshift: Run, typed, tmp_path: Path) -> None:
    """Killed as it begins, in mid-save, between saves, after each resume, and at last with a checkpoint cut short."""
    run, long = tmp_path / "run", ("--max-steps", 120, "--save-steps", 5, "--eval-share", 0.25)
    assert actshift(*typed(*long, out=tmp_path / "whole")).code == 0
    start = typed(*long, out=run)
    for moment in ("run.json", "checkpoint-10/optimizer.pt", "checkpoint-4?/complete.json", "checkpoint-1??/rng*"):
        process = _start(start)
        _wait_for(process, run, moment)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        start = ["train", "--out", str(run), "--resume"]
    whole = [path.parent for path in run.glob("checkpoints/checkpoint-*/complete.json")]
    newest = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-119")  # as a kill in mid-save leaves one, newer than any that is whole
    shutil.copytree(newest, half)
    (half / "complete.json").unlink()
    (half / "optimizer.pt").write_bytes(b"half")
    assert actshift(*start).code == 0
    assert names(run) == FILES
    assert weights(run) == weights(tmp_path / "whole")
