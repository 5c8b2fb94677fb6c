from __future__ import annotations

from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.compare import choose
from actshift.compare.methods import METHODS, PRESETS

OWN = """
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


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return str(path)


def names(*words: str) -> list[str]:
    return [method.name for method in choose(words).methods]


def test_names_and_presets() -> None:
    assert names("vector, full", "vector") == ["vector", "full"]
    assert names("paper") == PRESETS["paper"]
    assert names("post_mlp,paper")[0] == "post_mlp"
    assert names("all") == list(METHODS)


def test_a_file_defines_methods_and_changes_the_papers(own: str) -> None:
    choice = choose([own])
    full, joint, last = choice.methods
    assert (full.label, full.rates) == ("full fine-tuning", (1e-3, 2e-3))
    assert (joint.rates, joint.lora_rates) == ((1e-3,), ())
    assert joint.settings == {**METHODS["joint"].settings, "rank": 4}
    assert (last.label, last.cell_settings(1e-2, 0).layers) == ("last blocks", ("-2:",))
    assert choice.common == {"save_steps": 5}


def test_a_file_beside_names_adds_its_methods_and_its_changes_hold_for_both(own: str) -> None:
    assert names("paper", own) == [*PRESETS["paper"], "last"]
    assert choose(["paper", own]).methods[0].rates == (1e-3, 2e-3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vectr"], r"no method 'vectr' \(did you mean 'vector'\?\); there are paper, all, full, lora"),
        (["papr"], r"no method 'papr' \(did you mean 'paper'\?\)"),
        (["none.yaml"], "config file none.yaml cannot be read"),
        ([","], "No method is named"),
    ],
)
def test_a_wrong_name_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ActshiftError, match=told):
        choose(words)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method: {}", r"unknown part 'method' \(did you mean 'methods'\?\)"),
        ("methods: [vector]", r"methods must hold names with values, got \['vector'\]"),
        ("methods: {mine: 3}", "the method mine must hold label, settings, rates, lora_rates, got 3"),
        ("methods: {mine: {rate: [1]}}", r"unknown part 'rate' \(did you mean 'rates'\?\)"),
        ("methods: {mine: {settings: 3, rates: [1]}}", "settings of the method mine must hold names with values"),
        ("methods: {mine: {settings: {rank: 2}}}", r"The method mine needs learning rates"),
        ("common: {rank: 2}", "no common setting 'rank'"),
        ("common: {epoch: 2}", r"no common setting 'epoch' \(did you mean 'epochs'\?\)"),
        ("common: {learning_rate: 2}", "no common setting 'learning_rate'"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ActshiftError, match=told):
        choose([str(path)])
