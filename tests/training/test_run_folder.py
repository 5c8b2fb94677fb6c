from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.training import TrainSettings, run_folder, train
from actshift.training.run_folder import RunFolder

FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"}


def test_too_little_disk_space_raises_before_training(settings, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ActshiftError, match="0 MB free, and checkpoints need about 1 MB"):
        train(settings)


def test_full_disk_leaves_only_complete_checkpoints(tmp_path, settings, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.start(settings, "digest", resume=False)
    for step, files in ((2, ["complete.json"]), (4, ["half"])):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with (
        pytest.raises(ActshiftError, match=r"No space is left on the disk of .*run; free some space and continue"),
        run.explain_full_disk(1),
    ):
        raise RuntimeError("PytorchStreamWriter failed writing file")
    assert [folder.name for folder in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]


def test_remains_of_an_early_kill_do_not_block_the_folder(settings):
    checkpoints = Path(settings.out, "checkpoints")
    checkpoints.mkdir(parents=True)
    RunFolder(Path(settings.out)).check(settings, resume=False)
    (checkpoints / ".actshift-7.part").mkdir()
    (checkpoints / ".actshift-7.part" / "run.json").touch()
    RunFolder(Path(settings.out)).check(settings, resume=False)
    (checkpoints / "mine").touch()
    with pytest.raises(ActshiftError, match="is not empty"):
        RunFolder(Path(settings.out)).check(settings, resume=False)


def test_a_folder_in_place_of_the_mark_of_completion_is_removed(tmp_path):
    run = RunFolder(tmp_path)
    (run.checkpoints / "checkpoint-2" / "complete.json").mkdir(parents=True)
    with pytest.warns(UserWarning, match="checkpoint-2 is damaged"):
        assert run.latest(steps=10) is None
    assert not (run.checkpoints / "checkpoint-2").exists()


def test_a_resumed_run_hashes_its_files_once_and_refuses_another_limit(settings, monkeypatch):
    run, hashed = RunFolder(Path(settings.out)), list[object]()
    limited = replace(settings, limit=8)
    run.start(limited, "digest", resume=False)
    hash_files = run_folder.fingerprints
    monkeypatch.setattr(run_folder, "fingerprints", lambda values: hashed.append(values) or hash_files(values))
    run.start(limited, "digest", resume=True)
    assert len(hashed) == 1
    with pytest.raises(ActshiftError, match="started with limit 8, not 9"):
        run.check(replace(settings, limit=9), resume=True)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_result_files_follow_the_umask(settings: TrainSettings, umask: int) -> None:
    before = os.umask(umask)
    try:
        train(replace(settings, max_steps=1))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(str(settings.out)).iterdir()}
    assert modes == dict.fromkeys(FILES, 0o666 & ~umask)
