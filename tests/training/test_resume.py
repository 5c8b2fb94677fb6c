from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from actshift import ActshiftError
from actshift.training import TrainSettings, train
from actshift.training.trainer import Checkpoints
from tests.characters import sums, write_rows
from tests.training.helpers import METHODS, Killed, kill_at, weights


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[[TrainSettings], bytes]:
    """Return the weights of an uninterrupted run with these settings; runs are cached by `eval_share`."""
    runs: dict[float, bytes] = {}

    def run(settings: TrainSettings) -> bytes:
        if settings.eval_share not in runs:
            out = tmp_path_factory.mktemp("whole")
            train(replace(settings, out=str(out)))
            runs[settings.eval_share] = weights(out)
        return runs[settings.eval_share]

    return run


@pytest.mark.parametrize(
    "step, method, eval_share",
    [
        pytest.param(1, "on_step_end", 0.0, marks=pytest.mark.slow),  # before the first checkpoint
        pytest.param(5, "on_step_end", 0.25, marks=pytest.mark.slow),
        (6, "on_save", 0.0),  # before the checkpoint is marked as complete
        pytest.param(10, "on_save", 0.25, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_resume_after_a_kill_is_bit_identical(settings, uninterrupted, monkeypatch, step, method, eval_share):
    settings = replace(settings, eval_share=eval_share)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(step, patch, method)
        train(settings)
    assert not Path(settings.out, "adapter_config.json").exists()
    train(settings, resume=True)
    assert weights(settings.out) == uninterrupted(settings)
    assert sorted(file.name for file in Path(settings.out).iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"
    ]  # fmt: skip


@pytest.mark.slow
def test_incomplete_checkpoint_is_ignored(settings, uninterrupted, monkeypatch):
    save = torch.save

    def half(value, path, *args, **kwargs):
        if "checkpoint-6" in str(path):
            Path(path).write_bytes(b"half")
            raise Killed
        save(value, path, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", half)
        train(settings)
    assert Path(settings.out, "checkpoints", "checkpoint-6").is_dir()
    train(settings, resume=True)
    assert weights(settings.out) == uninterrupted(settings)


@pytest.mark.slow
def test_kill_while_the_result_is_moved_can_be_resumed(settings, uninterrupted, monkeypatch):
    replace_file = os.replace

    def die(source, target):
        if Path(target) == Path(settings.out, "adapter_config.json"):
            raise Killed
        replace_file(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", die)
        train(settings)
    with pytest.raises(ActshiftError, match="unfinished run"):
        train(settings)
    train(settings, resume=True)
    assert weights(settings.out) == uninterrupted(settings)


def test_resume_of_a_finished_run_only_reports_it(settings):
    first = train(settings)
    before = weights(settings.out)
    with pytest.warns(UserWarning, match="already finished; there is nothing to resume"):
        assert train(settings, resume=True) == first
    assert weights(settings.out) == before


def test_resume_with_other_settings_or_rows_raises(settings, monkeypatch, tmp_path):
    with pytest.raises(ActshiftError, match=r"no unfinished run in .*run to resume"):
        train(settings, resume=True)
    data = write_rows(tmp_path / "own.jsonl", sums(40))
    settings = replace(settings, data=str(data))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(5, patch, "on_step_end")
        train(settings)
    with pytest.raises(ActshiftError, match=r"started with learning_rate 0\.01, not 0\.02"):
        train(replace(settings, learning_rate=0.02), resume=True)
    with pytest.raises(ActshiftError, match="contains an unfinished run; continue it with --resume"):
        train(settings)
    write_rows(data, sums(39))
    with pytest.raises(ActshiftError, match=r"rows of .*own.jsonl have changed since the run in .* started"):
        train(settings, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if method != "lofit"])
def test_resume_of_each_method_is_bit_identical(settings, monkeypatch, tmp_path, method):
    settings = replace(settings, eval_share=0.25, **METHODS[method])
    train(replace(settings, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(7, patch, "on_step_end")
        train(settings)
    train(settings, resume=True)
    [file] = Path(settings.out).glob("*.safetensors")
    assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes()


@pytest.mark.slow
def test_resume_with_an_epoch_constraint_is_bit_identical(settings, monkeypatch, tmp_path):
    """Killed right behind the checkpoint of an epoch's last step, and a joint rule that was due at that step."""
    settings = replace(settings, method="joint", orthogonality_every="epoch", save_steps=5, max_steps=15)  # 5 an epoch
    train(replace(settings, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(6, patch, "on_step_end")
        train(settings)
    train(settings, resume=True)
    assert weights(settings.out) == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("phase, step", [("heads", 1), ("heads", 3), ("run", 1), ("run", 4)])
def test_resume_in_either_lofit_phase_is_bit_identical(settings, monkeypatch, tmp_path, phase, step):
    settings = replace(settings, **METHODS["lofit"])
    whole = train(replace(settings, out=str(tmp_path / "whole")))
    original = Checkpoints.on_step_end

    def die(self, args, state, control, **kwargs):
        if (self.run.path.name, state.global_step) == (phase, step):
            raise Killed
        original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "on_step_end", die)
        train(settings)
    with pytest.raises(ActshiftError, match="contains an unfinished run"):
        train(settings)
    resumed = train(settings, resume=True)
    assert resumed.selection.heads == whole.selection.heads
    assert weights(settings.out) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_resume_between_lofit_phases_uses_the_selected_heads(settings, monkeypatch, tmp_path):
    settings = replace(settings, max_steps=4, **METHODS["lofit"])
    whole = train(replace(settings, out=str(tmp_path / "whole")))

    remove = shutil.rmtree

    def die(path, *args, **kwargs):
        if Path(path).name == "heads":
            raise Killed
        remove(path, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("shutil.rmtree", die)
        train(settings)
    assert Path(settings.out, "checkpoints", "heads.json").is_file()
    copy = shutil.copytree(settings.out, tmp_path / "copy")
    assert train(settings, resume=True).selection == replace(whole.selection, fit=ANY)
    assert weights(settings.out) == weights(tmp_path / "whole")
    damaged = copy / "checkpoints" / "heads.json"
    damaged.write_text(damaged.read_text().replace('": [', '": [7, ', 1))
    with pytest.warns(UserWarning, match=r"heads\.json is damaged; the heads are selected again"):
        train(replace(settings, out=str(copy)), resume=True)
    assert weights(copy) == weights(tmp_path / "whole")
