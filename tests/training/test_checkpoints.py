"""Damaged checkpoints: a run resumes from an older whole one with the same bits, and says so."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actshift import ActshiftError
from actshift.training import TrainSettings, train
from actshift.training.run_folder import COMPLETE, RunFolder
from tests.characters import sums, write_rows
from tests.training.helpers import Killed, kill_at, weights

FILES = (
    "adapter_config.json", "adapter_model.safetensors", "complete.json", "optimizer.pt", "rng_state.pth",
    "scheduler.pt", "trainer_state.json", "training_args.bin",
)  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "flipped": flip,
}


@pytest.fixture(scope="module")
def runs(model_folder, rows_file, tmp_path_factory) -> tuple[TrainSettings, bytes]:
    """Return the settings of a run that was killed with the checkpoints 4 and 6, and the weights of a whole run."""
    folder = tmp_path_factory.mktemp("runs")
    settings = TrainSettings(
        model=str(model_folder), data=str(rows_file), out=str(folder / "killed"), max_steps=8, save_steps=2,
        batch_size=4, gradient_accumulation=1, learning_rate=1e-2,
    )  # fmt: skip
    train(replace(settings, out=str(folder / "whole")))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(7, patch, "on_step_end")
        train(settings)
    return settings, weights(folder / "whole")


@pytest.fixture
def killed(runs, tmp_path) -> TrainSettings:
    """The settings of a copy of the killed run."""
    shutil.copytree(runs[0].out, tmp_path / "run")
    return replace(runs[0], out=str(tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_checkpoint_is_not_used(killed, name, damage):
    run = RunFolder(Path(killed.out))
    assert {file.name for file in (run.checkpoints / "checkpoint-6").iterdir()} >= {*FILES}
    DAMAGES[damage](run.checkpoints / "checkpoint-6" / name)
    with pytest.warns(UserWarning, match=r"checkpoint-6 is damaged \(.*\). The run continues from checkpoint-4"):
        assert run.latest(8) == run.checkpoints / "checkpoint-4"
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize(
    "name, damage",
    [
        ("optimizer.pt", "missing"),
        *(pytest.param(name, damage, marks=pytest.mark.slow) for name in FILES for damage in DAMAGES),
    ],
)
def test_resume_after_damage_is_bit_identical(killed, runs, name, damage):
    DAMAGES[damage](Path(killed.out, "checkpoints", "checkpoint-6", name))
    with pytest.warns(UserWarning, match="checkpoint-6 is damaged"):
        train(killed, resume=True)
    assert weights(killed.out) == runs[1]


def test_run_without_a_whole_checkpoint_starts_again_and_says_so(killed):
    for step in (4, 6):
        Path(killed.out, "checkpoints", f"checkpoint-{step}", "scheduler.pt").unlink()
    message = (
        r"checkpoint-6 is damaged .*, and checkpoint-4 is damaged \(scheduler.pt is missing\). The run starts again"
    )
    with pytest.warns(UserWarning, match=message):
        assert RunFolder(Path(killed.out)).latest(8) is None


@pytest.mark.slow
def test_whole_checkpoint_resumes_without_a_warning(killed, runs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(killed, resume=True)
    assert weights(killed.out) == runs[1]


def test_foreign_weights_in_a_checkpoint_are_not_loaded(killed):
    """The trainer would load the base from such a file."""
    shutil.copy(Path(killed.model, "model.safetensors"), Path(killed.out, "checkpoints", "checkpoint-6"))
    with pytest.warns(UserWarning, match="model.safetensors does not belong to it"):
        RunFolder(Path(killed.out)).latest(8)


@pytest.mark.parametrize("name", ["checkpoint-abc", "checkpoint-", "checkpoint-²", f"checkpoint-{'9' * 99}", "checks"])
def test_other_names_and_hidden_files_are_ignored(killed, name):
    run = RunFolder(Path(killed.out))
    (run.checkpoints / name).mkdir()
    (run.checkpoints / "checkpoint-6" / ".DS_Store").touch()
    (run.checkpoints / "checkpoint-6" / ".nfs").mkdir()
    (run.checkpoints / "checkpoint-6" / ".nfs" / "1").touch()
    assert run.latest(8) == run.checkpoints / "checkpoint-6"
    assert (run.checkpoints / name).is_dir()


def test_linked_checkpoint_is_used_and_its_target_stays(killed, tmp_path):
    run = RunFolder(Path(killed.out))
    linked, file = run.checkpoints / "checkpoint-6", run.checkpoints / "checkpoint-7"
    file.write_text("no folder")
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="checkpoint-7 is damaged"):
        assert run.latest(8) == linked
    assert not file.exists()
    run.remove_all_but()
    assert not linked.is_symlink() and (tmp_path / "elsewhere" / COMPLETE).is_file()


@pytest.mark.slow
def test_checkpoint_needs_its_best_one(settings, tmp_path, monkeypatch):
    """The best state is kept, so a run that has lost it cannot end with the same bits."""
    unlike = write_rows(tmp_path / "unlike.jsonl", [{**row, "completion": "zzzzzzzz"} for row in sums(8)])
    settings = replace(settings, eval_data=str(unlike), learning_rate=0.1, schedule="constant")
    whole = train(replace(settings, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(9, patch, "on_step_end")
        train(settings)
    run = RunFolder(Path(settings.out))
    best = run.checkpoints / f"checkpoint-{whole.fit.best_step}"
    assert best.is_dir() and best.name < "checkpoint-8"
    flip(best / "adapter_model.safetensors")
    with pytest.warns(UserWarning, match=rf"checkpoint-8 is damaged \(it needs {best.name}, in which the content"):
        train(settings, resume=True)
    assert weights(settings.out) == weights(tmp_path / "whole")


def test_checkpoint_of_an_older_version_is_used_with_a_warning(killed, runs):
    for step in (4, 6):
        Path(killed.out, "checkpoints", f"checkpoint-{step}", COMPLETE).write_text('{"seconds": 1.5}')
    with pytest.warns(UserWarning, match="checkpoint-6 is of an older actshift, and cannot be checked for damage"):
        train(killed, resume=True)
    assert weights(killed.out) == runs[1]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_pickled_code_in_a_checkpoint_never_runs(killed, tmp_path, monkeypatch, name):
    """A stranger can write fitting hashes, or none as older versions did."""
    monkeypatch.chdir(tmp_path)
    checkpoint = Path(killed.out, "checkpoints", "checkpoint-6")
    torch.save({"state": Evil()}, checkpoint / name)
    (checkpoint / COMPLETE).write_text('{"seconds": 1.5}')
    with pytest.warns(UserWarning), pytest.raises(ActshiftError, match=r"checkpoint-6 cannot be loaded \(.*remove it"):
        train(killed, resume=True)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\x00",
        "[" * 99_999,
        "{}",
        '{"settings": 1, "rows": ""}',
        '{"rows": "", "settings": {}, "fingerprints": []}',
    ],
)
def test_damaged_record_is_one_clear_error(killed, content):
    Path(killed.out, "checkpoints", "run.json").write_text(content)
    with pytest.raises(ActshiftError, match=r"run\.json is damaged"):
        train(killed, resume=True)


@pytest.mark.parametrize("number", range(0, 400, 23))
def test_one_flipped_byte_of_the_record_is_found(killed, number):
    file = Path(killed.out, "checkpoints", "run.json")
    content = bytearray(file.read_bytes())
    content[number] ^= 1
    file.write_bytes(content)
    with pytest.raises(ActshiftError, match=r"run\.json is damaged"):
        RunFolder(Path(killed.out)).settings()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": {"no": 1}}', '{"settings": [], "head": 3}'])
def test_damaged_metrics_are_one_clear_error(settings, content):
    folder = Path(settings.out)
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "metrics.json").write_text(content)
    with pytest.raises(ActshiftError, match=r"metrics\.json is damaged"):
        train(settings, resume=True)


def test_all_files_are_on_the_disk_before_a_checkpoint_counts(killed, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr("actshift.training.run_folder.sync_file", lambda file: synced.append(file.name))
    run = RunFolder(Path(killed.out))
    checkpoint = run.checkpoints / "checkpoint-6"
    (checkpoint / COMPLETE).unlink()
    run.complete(checkpoint, 1.0, None)
    record = json.loads((checkpoint / COMPLETE).read_text())
    assert {*synced} == {*record["files"]} == {file.name for file in checkpoint.iterdir()} - {COMPLETE}
    assert all(len(digest) == 64 for _, digest in record["files"].values())
