"""`actshift demo` as a user types it, with few steps and few questions."""

from __future__ import annotations

import json

import pytest

from actshift.tuner import read_config


@pytest.fixture(autouse=True)
def _few_test_rows(monkeypatch):
    import actshift.demo.run as run

    monkeypatch.setattr(run, "TEST_ROWS", 40)


@pytest.mark.slow
def test_json_has_every_figure_and_the_adapter_loads(tmp_path, actshift):
    out = tmp_path / "demo"
    outcome = actshift("demo", "--steps", 2, "--methods", "post_mlp,vector,full", "--out", out, "--seed", 1, "--json")
    report = json.loads(outcome.out)
    assert (outcome.code, report["seed"], report["steps"], report["test_rows"]) == (0, 1, 2, 40)
    assert [row["method"] for row in report["rows"]] == ["post_mlp", "vector", "full"]
    steered, vector, full = report["rows"]
    assert steered["trainable"] == 6 * 2 * 8 * 128 and vector["trainable"] == 6 * 128
    assert steered["trainable_share"] < 0.015 and full["trainable_share"] == 1
    assert report["reloaded_accuracy"] == steered["accuracy"]
    assert len(report["examples"]) == 3
    assert report["adapter"] == str(out / "post_mlp") and read_config(report["adapter"]).site == "post_mlp"
    assert {folder.name for folder in out.iterdir()} == {"post_mlp", "vector"}


def test_tables_show_methods_answers_and_the_reloaded_accuracy(tmp_path, actshift):
    outcome = actshift("demo", "--steps", 1, "--methods", "post_block", "--out", tmp_path / "demo")
    for words in ("post-block r=8", "12,288", "0.94%", "again, the same accuracy", "actshift generate --adapter"):
        assert words in outcome.out
    assert outcome.code == 0 and "untouched base model" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "post_blok"], "The demo has no method 'post_blok' (did you mean 'post_block'?)"),
        (["--methods", "full,full"], "Name each method once"),
        (["--steps", "0"], "greater than or equal to 1"),
    ],
)
def test_invalid_options_fail_with_one_line(arguments, message, refused):
    assert message in refused("demo", *arguments)


def test_a_folder_with_files_is_refused_and_left_unchanged(tmp_path, refused):
    (tmp_path / "precious.txt").write_text("mine")
    assert "exists and is not empty" in refused("demo", "--steps", 1, "--out", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]
