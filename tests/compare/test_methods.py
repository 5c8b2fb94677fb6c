"""Methods, presets and method files: which settings they produce, and which errors they raise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from actshift import ActshiftError
from actshift.compare import CompareSettings, Method, select_methods
from actshift.compare.comparison import Comparison
from actshift.compare.methods import METHODS, PRESETS
from actshift.training.build import adapt, base_without_weights
from actshift.training.configs import AdapterSpec
from actshift.training.plan import final_parameter_counts
from tests.integration.test_published_counts import CONFIGS, ROWS

METHODS_FILE = """
common: {save_steps: 5}
methods:
  full:
    rates: [1e-3, 2e-3]
  joint:
    rates: [1e-3]
    settings: {rank: 4}
  last:
    label: last blocks
    settings: {layers: ["-2:"], positions: prompt}
    rates: [1e-2]
"""

PUBLISHED = {
    "full": "full fine-tuning",
    "lora": "LoRA r=8",
    "reft": "ReFT r=8",
    "lofit": "LoFiT",
    "jola": "JoLA",
    "vector": "post-block vector",
    "rank1": "post-block r=1",
    "linear": "post-block r=8 linear",
    "nonlinear": "post-block r=8 nonlinear",
}


@pytest.fixture
def methods_file(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(METHODS_FILE)
    return str(path)


def names(*words: str) -> list[str]:
    return [method.name for method in select_methods(words).methods]


def test_names_and_presets_select_each_method_once() -> None:
    assert names("vector, full", "vector") == ["vector", "full"]
    assert names("paper") == PRESETS["paper"]
    assert names("post_mlp,paper")[0] == "post_mlp"
    assert names("all") == list(METHODS)


def test_file_defines_methods_and_changes_built_in_ones(methods_file: str) -> None:
    selection = select_methods([methods_file])
    full, joint, last = selection.methods
    assert (full.label, full.rates) == ("full fine-tuning", (1e-3, 2e-3))
    assert (joint.rates, joint.lora_rates) == ((1e-3,), ())
    assert joint.settings == {**METHODS["joint"].settings, "rank": 4}
    assert (last.label, last.cell_settings(1e-2, 0).layers) == ("last blocks", ("-2:",))
    assert selection.common == {"save_steps": 5}


@pytest.mark.parametrize(
    "section",
    [
        "common: {trust_remote_code: true}\nmethods: {vector: {}}",
        "methods: {vector: {settings: {trust_remote_code: true}}}",
        "methods: {vector: {settings: {objective: grpo, reward: 'surprise:f'}}}",
        "methods: {vector: {settings: {model: gpt2}}}",
        "methods: {vector: {settings: {revision: v1}}}",
    ],
)
def test_file_alone_runs_no_code_and_chooses_no_model(tmp_path: Path, section: str) -> None:
    (tmp_path / "own.yaml").write_text(section)
    settings = CompareSettings(model="m", data="rows.jsonl", out="out", methods=(str(tmp_path / "own.yaml"),))
    with pytest.raises(ActshiftError, match=r"which runs Python code|which the comparison sets|must be equal"):
        Comparison.from_settings(settings)


def test_file_extends_and_changes_a_preset(methods_file: str) -> None:
    assert names("paper", methods_file) == [*PRESETS["paper"], "last"]
    assert select_methods(["paper", methods_file]).methods[0].rates == (1e-3, 2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vectr"], r"no method 'vectr' \(did you mean 'vector'\?\). Choose from paper, all, full, lora"),
        (["papr"], r"no method 'papr' \(did you mean 'paper'\?\)"),
        (["none.yaml"], "config file none.yaml cannot be read"),
        ([","], "No method is named"),
    ],
)
def test_unknown_names_are_rejected(words: list[str], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        select_methods(words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: {}", r"unknown key 'method' \(did you mean 'methods'\?\). Use methods, common"),
        ("methods: [vector]", r"methods must map names to values, got \['vector'\]"),
        ("methods: {mine: 3}", "the method mine must hold label, settings, rates, lora_rates, got 3"),
        ("methods: {mine: {rate: [1]}}", r"unknown key 'rate' \(did you mean 'rates'\?\)"),
        ("methods: {mine: {settings: 3, rates: [1]}}", "the method mine: settings must map names to values, got 3"),
        ("methods: {mine: {settings: {rank: 2}}}", r"The method mine needs learning rates"),
        (
            "common: {rank: 2}",
            "methods cannot share the setting 'rank'. They can share limit, objective, chat",
        ),
        ("common: {epoch: 2}", r"cannot share the setting 'epoch' \(did you mean 'epochs'\?\)"),
        ("common: {learning_rate: 2}", "methods cannot share the setting 'learning_rate'"),
    ],
)
def test_invalid_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ActshiftError, match=message):
        select_methods([str(path)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "cannot be called 'a/b'"),
        ({"name": "base"}, "cannot be called 'base'"),
        ({"rates": ()}, r"needs learning rates, each once. Got \[\]"),
        ({"rates": (1e-3, 0.001)}, "needs learning rates, each once"),
        ({"rates": ("fast",)}, r"rates of the method mine must be a list of numbers, got \('fast',\)"),
        ({"rates": 1e-3}, "rates of the method mine must be a list of numbers, got 0.001"),
        ({"rates": (-1e-3,)}, "In the method mine: learning_rate must be above 0"),
        ({"lora_rates": (1e-4,)}, "has 2 rates and 1 lora_rates. Give one lora_rate for each rate"),
        ({"settings": {"rnak": 2}}, r"In the method mine: There is no setting 'rnak' \(did you mean 'rank'\?\)"),
        ({"settings": {"rank": "two"}}, "In the method mine: rank must be a whole number, got 'two'"),
        ({"settings": {"seed": 3}}, "The method mine sets seed, which the comparison sets"),
        ({"settings": {"epochs": 3}}, "sets epochs, which must be equal for all methods. Set it under 'common'"),
    ],
)
def test_invalid_methods_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        Method(**{"name": "mine", "label": "mine", "rates": (1e-3, 2e-3), **changes})


def test_each_half_of_joint_has_its_own_rate() -> None:
    joint = METHODS["joint"]
    cells = [joint.cell_settings(rate, seed=0) for rate in joint.rates]
    assert [settings.learning_rate for settings in cells] == [5e-4, 1e-3, 2e-3, 3e-3, 5e-3]
    assert [settings.lora_learning_rate for settings in cells] == [5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3]
    assert {(settings.schedule, settings.warmup, settings.orthogonality) for settings in cells} == {
        ("cosine", 0.06, "read")
    }


def test_own_settings_of_a_method_override_common_ones() -> None:
    assert METHODS["joint"].cell_settings(1e-3, seed=0, schedule="constant").schedule == "cosine"
    assert METHODS["vector"].cell_settings(1e-3, seed=0, schedule="constant").schedule == "constant"


def test_every_named_method_can_be_built() -> None:
    for method in METHODS.values():
        AdapterSpec.from_settings(method.cell_settings(method.rates[0], seed=0))
        assert len(method.rates) == 5
    assert set(PRESETS["paper"]) <= set(METHODS)


@pytest.mark.parametrize("model", ["Llama-3.2-1B", "Gemma-3-1B"])
def test_named_methods_train_as_many_parameters_as_the_paper_reports(model: str, tmp_path: Path) -> None:
    AutoConfig.for_model(**CONFIGS[model]).save_pretrained(tmp_path)
    published = {row[1]: row[2] for row in ROWS if row[0] == model}
    for name, label in PUBLISHED.items():
        method = METHODS[name]
        settings = method.cell_settings(method.rates[0], seed=0, model=str(tmp_path))
        trainable, _ = final_parameter_counts(
            adapt(base_without_weights(settings), AdapterSpec.from_settings(settings), steps=100), settings
        )
        assert trainable == published[label], name
