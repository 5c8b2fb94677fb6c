"""The verbs on encoders: a classifier is trained, scored, located and extracted, but generates no text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actshift.training import TrainSettings, train
from tests.encoders import classed, save_encoder, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with an encoder, rows, an adapter trained on them, and the fully fine-tuned encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    save_encoder(folder / "model")
    write(folder / "rows.jsonl", classed(40))
    for method in ("steering", "full"):
        files = {"model": str(folder / "model"), "data": str(folder / "rows.jsonl"), "out": str(folder / method)}
        train(TrainSettings(**files, method=method, max_steps=6, batch_size=8, learning_rate=1e-2))
    return folder


def test_an_adapter_and_a_fine_tuned_classifier_are_scored(actshift, folder, tmp_path):
    for source in (("--adapter", folder / "steering"), ("--model", folder / "full")):
        out = tmp_path / f"{source[1].name}.jsonl"
        code, printed, err = actshift("eval", *source, "--data", folder / "rows.jsonl", "--json", "--out", out)
        assert code == 0, err
        figures, rows = json.loads(printed), [json.loads(line) for line in out.read_text().splitlines()]
        assert (figures["total"], figures["scorer"]) == (40, "class")
        assert {row["prediction"] for row in rows} <= {"dull", "fine"}


def test_a_classifier_generates_no_text(refused, folder):
    assert "writes no text: its head is SEQ_CLS" in refused(
        "generate", "--adapter", folder / "steering", "--prompt", "w1"
    )


def test_an_encoder_without_a_head_cannot_be_scored(refused, folder):
    message = refused("eval", "--model", folder / "model", "--data", folder / "rows.jsonl")
    assert "need a model with the head SEQ_CLS, and this one has FEATURE_EXTRACTION" in message


def test_locate_chooses_interventions_for_an_encoder(actshift, folder, tmp_path):
    out = tmp_path / "bought.json"
    where = ("locate", "--model", folder / "model", "--data", folder / "rows.jsonl", "--rank", "2", "--no-weights")
    code, printed, err = actshift(*where, "--budget", "200", "--out", out, "--json")
    assert code == 0, err
    assert json.loads(printed)["targets"] == 40 and json.loads(out.read_text())["interventions"]


@pytest.mark.slow
def test_extract_keeps_the_classes_of_a_fine_tuned_classifier(actshift, folder, tmp_path):
    made = ("extract", "--finetuned", folder / "full", "--model", folder / "model", "--data", folder / "rows.jsonl")
    code, printed, err = actshift(*made, "--rank", "4", "--no-linear", "--out", tmp_path / "adapter")
    assert code == 0, err
    assert "predictions by" in printed
    code, printed, err = actshift("eval", "--adapter", tmp_path / "adapter", "--data", folder / "rows.jsonl", "--json")
    assert code == 0 and json.loads(printed)["total"] == 40, err
