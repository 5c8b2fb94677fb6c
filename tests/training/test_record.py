"""A resumed run notices what has changed since it started, and finds its files from wherever it is resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from actshift import ActshiftError
from actshift.training import TrainSettings, stored_settings, train
from actshift.training.record import place
from actshift.training.rewards import RewardError, hash_reward
from actshift.training.run_folder import RunFolder, read_json, write_json
from tests.training.helpers import Killed, kill_at, weights


@pytest.fixture(scope="module")
def originals(model_folder, rows_file, tmp_path_factory) -> Path:
    """Return a folder with `model`, `rows.jsonl` and `run`, which was killed in it, and `whole`, which was not."""
    folder = tmp_path_factory.mktemp("originals")
    shutil.copytree(model_folder, folder / "model")
    shutil.copy(rows_file, folder / "rows.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(settings_in("whole"))
        kill_at(3, patch, "on_step_end")
        with pytest.raises(Killed):
            train(settings_in("run"))
    return folder


def settings_in(out: str, **change: object) -> TrainSettings:
    values = {"model": "model", "data": "rows.jsonl", "out": out, "max_steps": 4, "save_steps": 2, "batch_size": 4}
    return TrainSettings(**{**values, **change})


@pytest.fixture
def here(originals, tmp_path, monkeypatch) -> Path:
    """The working directory: a copy of the folder in which the run was killed. The record says so."""
    shutil.copytree(originals, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    edit_record(lambda record: record | {"cwd": str(Path.cwd()), "inode": Path("run/checkpoints").stat().st_ino})
    return Path.cwd()


def edit_record(edit) -> None:
    file = Path("run/checkpoints/run.json")
    write_json(file, edit(read_json(file)))


def resumed(**change: object) -> bytes:
    """Resume the run, without any warning, and return its weights."""
    settings = settings_in(**{"out": "run", **change})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(settings, resume=True)
    return weights(settings.out)


@pytest.mark.parametrize("out", ["run/", "./run", "../copy/run", "link", "{home}/copy/run", "~/copy/run"])
def test_other_names_of_the_same_folder_are_the_same_run(here, monkeypatch, out):
    monkeypatch.setenv("HOME", str(here.parent))
    Path("link").symlink_to("run")
    run = RunFolder(Path(settings_in(out.format(home=here.parent)).out))
    run.check(settings_in(str(run.path), model="./model/", data=str(here / "rows.jsonl")), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("out", ["run/", "link", "~/copy/run"])
def test_resume_by_another_name_is_bit_identical(here, monkeypatch, out):
    monkeypatch.setenv("HOME", str(here.parent))
    Path("link").symlink_to("run")
    assert resumed(out=out) == weights("whole")


@pytest.mark.slow
def test_run_is_resumed_from_another_working_directory(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = stored_settings("copy/run")
    assert (stored["model"], stored["data"]) == (str(here / "model"), str(here / "rows.jsonl"))
    train(TrainSettings(**{**stored, "out": "copy/run"}), resume=True)
    assert weights("copy/run") == weights("copy/whole")


@pytest.mark.slow
def test_moved_run_keeps_its_best_checkpoint(originals, tmp_path, monkeypatch):
    monkeypatch.chdir(originals)
    settings = settings_in(str(tmp_path / "run"), eval_share=0.25, max_steps=8)
    whole = train(replace(settings, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(5, patch, "on_step_end")
        train(settings)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert train(replace(settings, out=str(tmp_path / "moved")), resume=True).fit.best_step == whole.fit.best_step
    assert weights(tmp_path / "moved") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_moved_rows_and_model_are_accepted_if_their_content_is_the_same(here):
    Path("rows.jsonl").rename("moved.jsonl")
    Path("model").rename("base")
    with pytest.raises(ActshiftError, match=r"no file rows\.jsonl|no folder model|model is neither"):
        resumed()
    assert resumed(data="moved.jsonl", model="base") == weights("whole")


def scale_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1.001
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def edit_json(name: str, **values: object):
    def edit(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))

    return edit


@pytest.mark.parametrize(
    "edit, part",
    [
        (scale_weights, "weights"),
        (edit_json("config.json", rms_norm_eps=1e-4), "config"),
        (edit_json("tokenizer_config.json", model_max_length=60), "tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"), "chat template"),
    ],
)
def test_changed_base_is_refused(here, edit, part):
    edit(Path("model"))
    with pytest.raises(
        ActshiftError, match=rf"base model has changed since the run in run started \({part}\); restore"
    ):
        resumed()


def test_config_that_was_only_saved_again_is_no_change(here):
    edit_json("config.json", transformers_version="4.99", _name_or_path="elsewhere")(Path("model"))
    RunFolder(Path("run")).check(settings_in("run"), resume=True)


def test_other_package_versions_warn(here):
    edit_record(lambda record: record["fingerprints"]["versions"].update(torch="2.0.1") or record)
    with pytest.warns(
        UserWarning, match=r"Results can differ, because the run in run started with torch 2\.0\.1 \(now 2"
    ):
        RunFolder(Path("run")).check(settings_in("run"), resume=True)


def test_record_of_an_older_version_warns(here):
    def older(record):
        return {"settings": {**record["settings"], "out": "run"}, "rows": record["rows"]}

    edit_record(older)
    with pytest.warns(UserWarning, match="An older actshift recorded no fingerprints"):
        RunFolder(Path("run")).check(settings_in("run/", model="./model"), resume=True)
    with pytest.raises(ActshiftError, match="started with model 'model', not 'other'"):
        RunFolder(Path("run")).check(settings_in("run", model="other"), resume=True)


@pytest.mark.parametrize(
    "change, problem", [({"seed": 1}, "seed 0, not 1"), ({"save_steps": 1}, "save_steps 2, not 1")]
)
def test_other_settings_are_refused(here, change, problem):
    with pytest.raises(ActshiftError, match=f"started with {problem}; resume it with the same settings"):
        resumed(**change)


def test_custom_rewards_are_compared_with_their_imports(here, monkeypatch):
    monkeypatch.setattr("sys.path", [str(here), *sys.path])
    Path("my_helper.py").write_text("LIMIT = 3\n")
    Path("my_reward.py").write_text("import my_helper\ndef f(completions, **columns):\n    return [1.0] * 8\n")
    first = hash_reward("my_reward:f")
    assert first == hash_reward("my_reward:f")
    for name in ("my_helper.py", "my_reward.py"):
        Path(name).write_text(Path(name).read_text() + "\n# edited\n")
        second = hash_reward("my_reward:f")
        assert second != first
        first = second


@pytest.mark.parametrize(
    "field, flag",
    [({"reward": ["mine:f"], "objective": "grpo"}, "--reward"), ({"trust_remote_code": True}, "--trust-remote-code")],
)
def test_copied_run_cannot_make_code_run(here, field, flag):
    edit_record(lambda record: {**record, "settings": {**record["settings"], **field}})
    assert stored_settings("run").items() >= field.items()
    edit_record(lambda record: {**record, "inode": 1})
    with pytest.raises(ActshiftError, match=rf"was copied here, and its setting \w+ runs code; repeat {flag} if you"):
        stored_settings("run")
    assert stored_settings("run", [*field])


def test_finished_run_of_a_stranger_cannot_make_code_run(here):
    metrics = Path("whole/metrics.json")
    values = json.loads(metrics.read_text())
    values["settings"]["trust_remote_code"] = True
    metrics.write_text(json.dumps(values))
    assert stored_settings("whole")["trust_remote_code"] is False


HOLD = """
import sys
from pathlib import Path
from actshift.training.run_folder import RunFolder, read_json, write_json
with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(here):
    """Another process that trains in the run's folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused_until_the_first_one_dies(holder):
    for resume in (True, False):
        with pytest.raises(
            ActshiftError, match="Another process trains in run; wait for it, or write to another folder"
        ):
            train(settings_in("run"), resume=resume)
    holder.kill()
    holder.communicate()
    assert resumed() == weights("whole")


def test_refused_run_leaves_no_folder(tmp_path):
    run = RunFolder(tmp_path / "new" / "run")
    with pytest.raises(RewardError), run.locked():
        assert run.checkpoints.is_dir()
        raise RewardError
    assert not (tmp_path / "new").exists()


def test_lists_of_paths_are_compared_one_by_one(here):
    assert place(["rows.jsonl", "hub/id"]) == [str(here / "rows.jsonl"), "hub/id"]
