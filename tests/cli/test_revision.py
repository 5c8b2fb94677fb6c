"""The revision of a base on the hub: given, recorded by training, and read from an adapter by every verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, SteeringConfig, attach
from actshift.cli.models import Base, load_steered, resolve_base
from actshift.loading import load_model
from actshift.tuner.loading import lora_model
from tests.cli.conftest import PAIRS, Run
from tests.tiny import save_model

HUB_ID = "acme/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache a model with the revisions `v1` and, with other weights, `main`; return the folder of its snapshots."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    for reference, factor in (("v1", 1.0), ("main", 0.5)):
        commit = f"{len(reference)}" * 40
        folder = save_model(repository / "snapshots" / commit)
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        model.save_pretrained(folder)
        (repository / "refs" / reference).write_text(commit)
    return repository / "snapshots"


@pytest.fixture
def adapter(hub: Path, tmp_path: Path) -> Path:
    """An adapter whose config names the revision `v1`, as PEFT records it."""
    folder = tmp_path / "adapter"
    attach(load_model(HUB_ID, revision="v1")[0], SteeringConfig(rank=2)).save_pretrained(str(folder))
    return folder


def weight(model: torch.nn.Module) -> torch.Tensor:
    return next(parameter for name, parameter in model.named_parameters() if "embed" in name)


def test_an_adapter_is_loaded_on_the_revision_that_it_names(adapter: Path) -> None:
    loaded, _, _ = load_steered(None, [str(adapter)], 1.0, False)
    assert torch.equal(weight(loaded), weight(AutoPeftModelForCausalLM.from_pretrained(adapter)))
    assert torch.equal(weight(loaded), weight(load_model(HUB_ID, revision="v1")[0]))
    assert not torch.equal(weight(loaded), weight(load_model(HUB_ID)[0]))
    assert resolve_base(HUB_ID, [str(adapter)]) == Base(HUB_ID, "v1")  # also if the user names the same model
    assert resolve_base("other/model", [str(adapter)]) == Base("other/model")


def test_another_revision_is_used_with_a_warning(adapter: Path) -> None:
    with pytest.warns(UserWarning, match="is for the revision v1 of acme/tiny, but the revision main is used"):
        assert resolve_base(None, [str(adapter)], "main") == Base(HUB_ID, "main")


def test_a_second_adapter_for_another_revision_warns(adapter: Path, tmp_path: Path) -> None:
    lora_model(load_model(HUB_ID)[0], r=2).save_pretrained(str(tmp_path / "lora"))
    with pytest.warns(UserWarning, match="lora is for the revision main of acme/tiny, but the revision v1 is used"):
        assert resolve_base(None, [str(adapter), str(tmp_path / "lora")]) == Base(HUB_ID, "v1")


@pytest.mark.parametrize("name", ["base_model_name_or_path", "revision"])
def test_a_base_or_revision_that_is_no_text_is_refused(refused: Callable[..., str], adapter: Path, name: str) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, name: ["v1"]}))
    assert "must be text" in refused("generate", "--adapter", adapter, "--prompt", "w1")


def test_a_folder_has_no_revision_and_an_unknown_one_is_refused(refused: Callable[..., str], model: Path) -> None:
    message = refused("generate", "--model", model, "--revision", "v1", "--prompt", "w1")
    assert f"{model} is a folder, and only models on the hub have revisions" in message
    with pytest.raises(ActshiftError, match="is a folder, and only models on the hub"):
        load_model(model, revision="v1")
    assert "The revision is empty" in refused("generate", "--model", "me/base", "--revision", "", "--prompt", "w1")


def test_training_records_the_revision(
    actshift: Run, hub: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = write_rows(PAIRS), tmp_path / "run"
    code, _, err = actshift(
        "train", "--model", HUB_ID, "--revision", "v1", "--data", rows, "--out", out, "--max-steps", 1
    )
    assert code == 0, err
    assert json.loads((out / "adapter_config.json").read_text())["revision"] == "v1"
    assert "Base model `acme/tiny` at the revision `v1`" in (out / "README.md").read_text()
    assert torch.equal(
        weight(AutoPeftModelForCausalLM.from_pretrained(out)), weight(load_model(HUB_ID, revision="v1")[0])
    )
    code, text, _ = actshift("inspect", out)
    assert code == 0
    assert "acme/tiny at v1" in text


@pytest.mark.parametrize("verb", ["vector", pytest.param("extract", marks=pytest.mark.slow)])
def test_verbs_that_write_adapters_record_the_revision(
    actshift: Run, hub: Path, write_rows: Callable[..., Path], tmp_path: Path, verb: str
) -> None:
    rows, other, out = tmp_path / "positive.jsonl", write_rows(PAIRS[::-2]), tmp_path / "run"
    rows.write_text("".join(json.dumps(row) + "\n" for row in PAIRS[:10]))
    save_model(tmp_path / "tuned")
    sources = {"vector": ("--positive", rows, "--negative", other),
               "extract": ("--finetuned", tmp_path / "tuned", "--data", rows)}[verb]  # fmt: skip
    code, _, err = actshift(verb, "--model", HUB_ID, "--revision", "main", *sources, "--out", out)
    assert code == 0, err
    assert json.loads((out / "adapter_config.json").read_text())["revision"] == "main"


SLOW = [pytest.param(verb, marks=pytest.mark.slow) for verb in ("locate", "equivalence", "report")]


@pytest.mark.parametrize("verb", ["eval", *SLOW])
def test_verbs_read_the_tokenizer_and_config_of_the_revision(
    actshift: Run, hub: Path, adapter: Path, write_rows: Callable[..., Path], tmp_path: Path, verb: str
) -> None:
    for file in (hub / ("4" * 40)).iterdir():
        file.write_text("broken")
    data, out = ("--data", write_rows(PAIRS)), ("--out", tmp_path / "page.html")
    rest = {"eval": (*data, "--max-new-tokens", 2), "locate": data, "equivalence": (), "report": (*data, *out)}[verb]
    code, _, err = actshift(verb, "--adapter", adapter, *rest)
    assert code == 0 or (verb == "equivalence" and "linear" in err), err
    assert actshift(verb, "--adapter", adapter, *rest, "--revision", "main")[0] == 2


def test_inspect_shows_an_adapter_whose_base_has_moved(actshift: Run, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    for base in ("../moved", "/gone/base", "a/b/c", "spaces in it", "..", "x" * 300, "a" * 4000, "é/è"):
        (adapter / "adapter_config.json").write_text(
            json.dumps({**config, "base_model_name_or_path": base, "revision": None})
        )
        code, text, err = actshift("inspect", adapter)
        assert code == 0, err
        assert "not found on this machine" in text
