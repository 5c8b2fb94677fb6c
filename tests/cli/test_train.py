"""`actshift train` as a user types it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from actshift.training import TrainSettings
from tests.cli.conftest import override

ROWS = [{"prompt": f"w{i} w{i}", "completion": f"w{i + 1}"} for i in range(20)]


@pytest.fixture
def basics(model, write_rows, tmp_path) -> list[object]:
    """The options that every run needs."""
    return ["--model", model, "--data", write_rows(ROWS), "--out", tmp_path / "run", "--max-steps", 4]


def test_every_setting_is_a_flag_with_its_help_text(actshift, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, help_text, _ = actshift("train", "--help")
    for item in fields(TrainSettings):
        assert f"--{item.name.replace('_', '-')}" in help_text
        assert item.metadata["help"].rstrip(".") in help_text


def test_a_run_saves_an_adapter_and_prints_its_figures(actshift, basics, tmp_path):
    code, out, err = actshift("train", *basics, "--eval-share", 0.2)
    assert code == 0
    for part in ("trainable", "1,536 of", "train loss", "best eval loss", "size on disk", "time"):
        assert part in out
    assert "Training 4/4" in err and (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_json_equals_the_saved_metrics_and_other_verbs_use_the_adapter(actshift, basics, tmp_path):
    _, out, _ = actshift("train", *basics, "--json")
    assert json.loads(out) == json.loads((tmp_path / "run" / "metrics.json").read_text())
    code, out, err = actshift(
        "eval", "--adapter", tmp_path / "run", "--data", basics[3], "--max-new-tokens", 2, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["total"] == 20


def test_a_dry_run_shows_sites_and_sizes_and_writes_nothing(actshift, basics, tmp_path):
    code, out, _ = actshift("train", *basics, "--layers", 0, "--layers", "-1:", "--dry-run")
    assert code == 0 and not (tmp_path / "run").exists()
    for part in ("model.layers.0", "model.layers.2", "1,024 of", "20, the longest", "memory, about"):
        assert part in out
    assert "cached prefix" not in out
    _, out, _ = actshift("train", *basics, "--dry-run", "--json")
    assert json.loads(out)["steps"] == 4
    cached = ("--cache-prefix", "memory", "--group-by-length", "--layers", "1:")
    _, out, err = actshift(*override(["train", *basics], *cached, "--max-steps", 8, "--dry-run"))
    assert "cached prefix, about" in out, err


@pytest.mark.parametrize(
    "setting", ["trust_remote_code: true", "reward: surprise:f", "reward: [right_answer, 'surprise:f']"]
)
def test_a_config_file_alone_runs_no_code(refused, basics, tmp_path, monkeypatch, setting):
    monkeypatch.chdir(tmp_path)
    Path("surprise.py").write_text("open('RAN', 'w')\ndef f(completions, **columns): return [0.0]\n")
    Path("c.yaml").write_text(f"{setting}\n" + ("objective: grpo\n" if "reward" in setting else ""))
    message = refused("train", *basics, "--config", "c.yaml", "--dry-run")
    assert "which runs Python code. If you trust it, give --trust-remote-code on the command line too" in message
    assert not Path("RAN").exists()


@pytest.mark.parametrize("setting", ["trust_remote_code: true", "reward: surprise:f", "out: x", "model: x"])
def test_a_task_file_runs_no_code_and_chooses_no_model(refused, basics, tmp_path, monkeypatch, setting):
    monkeypatch.chdir(tmp_path)
    Path("surprise.py").write_text("open('RAN', 'w')\ndef f(completions, **columns): return [0.0]\n")
    Path("t.yaml").write_text(f"data: r.jsonl\nprompt: 'w1'\ncompletion: ' {{a}}'\nsettings: {{{setting}}}\n")
    options = [word for word in map(str, basics)]
    options[options.index("--data") : options.index("--data") + 2] = ["--task", "t.yaml"]
    assert f"cannot set '{setting.split(':')[0]}'" in refused("train", *options, "--dry-run")
    assert not Path("RAN").exists()


def test_flags_override_the_config_file(actshift, basics, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("rank: 2\nlearning-rate: 5e-4\nbias: true\n")
    _, out, _ = actshift("train", *basics, "--config", config, "--rank", 3, "--no-bias", "--json")
    used = json.loads(out)["settings"]
    assert (used["rank"], used["learning_rate"], used["bias"], used["max_steps"]) == (3, 5e-4, False, 4)


def test_resuming_a_finished_run_prints_its_figures(actshift, basics, tmp_path):
    actshift("train", *basics)
    code, out, err = actshift("train", "--out", tmp_path / "run", "--resume")
    assert code == 0 and "train loss" in out
    assert "warning" in err and "already finished" in err


def test_invalid_settings_fail_with_one_line_and_write_nothing(refused, basics, tmp_path, write_rows):
    config = tmp_path / "config.yaml"
    config.write_text("learning_rat: 1\n")
    for more, message in [
        (["--config", config], "did you mean 'learning_rate'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--rank", "x"], "--rank"),
        (["--rank", 0], "rank must be"),
        (["--rank", 99], "rank 99 is above the site's width 32"),
        (["--site", "post_blok"], "did you mean 'post_block'"),
        (["--layers", 9], "9 is out of range"),
        (["--schedule", "linaer"], "did you mean 'linear'"),
        (["--learning-rat", 1], "--learning-rat"),
        (["--resume"], "no unfinished run"),
        (["--data", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["--model", tmp_path / "nowhere"], "nowhere"),
        (["--out", tmp_path], "is not empty"),
    ]:
        assert message in refused(*override(["train", *basics], *more))
        assert not (tmp_path / "run").exists(), more


def test_a_row_without_completion_is_named(refused, basics, write_rows):
    write_rows([ROWS[0], {"prompt": "w1"}])
    assert "Row 2 of" in refused("train", *basics)


def test_a_missing_setting_is_named(refused):
    assert "out is missing; give --out" in refused("train")


def test_ctrl_c_tells_how_to_continue(refused, actshift, basics, tmp_path, monkeypatch):
    from actshift.training.trainer import Checkpoints

    def interrupt(self, args, state, control, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_step_end", interrupt)
        _, _, err = actshift("train", *basics)
    assert f"--out {tmp_path / 'run'} --resume" in err.splitlines()[-1]
    code, _, _ = actshift("train", "--out", tmp_path / "run", "--resume")
    assert code == 0


@pytest.mark.slow
def test_a_joint_run_reports_the_overlap_of_its_halves(actshift, basics, tmp_path):
    joint = ("--method", "joint", "--eval-share", 0.2)
    code, out, _ = actshift("train", *basics, *joint)
    assert code == 0
    for part in ("Overlap of the two halves", "read cos²", "Measured on held-out rows.", "of W_down lies in col(B)"):
        assert part in out
    _, out, _ = actshift("train", "--out", tmp_path / "run", "--resume", "--json")
    halves = json.loads(out)["halves"]
    assert halves["violation"] <= 1e-5 and halves["read"] <= 1e-5 and halves["held_out"]


@pytest.mark.slow
def test_a_joint_run_whose_rows_were_deleted_is_still_reported(actshift, basics, tmp_path):
    actshift("train", *basics, "--method", "joint")
    Path(basics[3]).unlink()
    code, out, err = actshift("train", "--out", tmp_path / "run", "--resume")
    assert code == 0 and "train loss" in out and "could not be measured: There is no file" in err


def test_a_dry_run_of_lora_lists_its_maps_by_name(actshift, basics):
    _, out, _ = actshift("train", *basics, "--method", "lora", "--dry-run")
    assert "Sites" not in out and "down_proj" in out and "11,136 of" in out
    _, out, _ = actshift("train", *basics, "--method", "full", "--dry-run")
    assert "down_proj" not in out and "(100.000%)" in out


@pytest.mark.slow
def test_lofit_prints_the_heads_that_it_chose(actshift, basics):
    code, out, err = actshift("train", *basics, "--adapter", "lofit", "--lofit-heads", 2)
    assert code == 0 and "2 heads (block" in out
    assert "LoFiT 1 of 2, selecting heads 2/2" in err and "LoFiT 2 of 2, training shifts 2/2" in err


def test_data_is_repeatable_and_columns_are_mapped(actshift, refused, basics, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"prompt": "w1", "completion": "w2"}\n' * 5)
    _, out, err = actshift("train", *basics, "--data", more, "--dry-run", "--json")
    assert json.loads(out)["rows"] == 25, err
    weighted = override(["train", *basics], "--data", f"{basics[3]}=0.5", "--data", f"{more}=0.5")
    _, out, _ = actshift(*weighted, "--dry-run", "--json")
    assert json.loads(out)["rows"] > 25
    assert "eval_share would hold out rows that weights repeat" in refused(*weighted, "--eval-share", 0.5)
    more.write_text('{"question": "w1", "answer": "w2"}\n' * 5)
    mapped = override(["train", *basics], "--data", more, "--map", "prompt=question", "--map", "completion=answer")
    _, out, _ = actshift(*mapped, "--dry-run", "--json")
    assert json.loads(out)["layout"].endswith("question as prompt and answer as completion")
    assert "must be name=column" in refused(*override(mapped, "--map", "x"))
