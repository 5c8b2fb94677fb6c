from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from actshift import ActshiftError
from actshift.adapters import ADAPTERS
from actshift.sites.resolve import SITES
from actshift.training import TrainSettings, read_config_file, settings
from actshift.training.objectives import OBJECTIVES
from actshift.training.rewards import REWARDS


def test_unknown_setting_suggests_the_nearest_name() -> None:
    with pytest.raises(ActshiftError, match=r"no setting 'learning_rat' \(did you mean 'learning_rate'\?\)"):
        TrainSettings.from_mapping({"learning_rat": 1e-3})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", "5e-4", 5e-4),  # YAML reads it as text
        ("learning_rate", 1, 1.0),
        ("layers", [0, "-2:"], (0, "-2:")),
        ("layers", 3, (3,)),
        ("layers", range(2), (0, 1)),
        ("out", Path("a/b"), "a/b"),
        ("max_steps", None, None),
        ("precision", "bf16", "bf16"),
    ],
)
def test_values_are_converted_to_their_type(name: str, value: object, expected: object) -> None:
    converted = getattr(TrainSettings.from_mapping({name: value}), name)
    assert (converted, type(converted)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", "8", "batch_size must be a whole number, got '8'"),
        ("batch_size", 8.0, "batch_size must be a whole number, got 8.0"),
        ("batch_size", True, "batch_size must be a whole number, got True"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("learning_rate", "fast", "learning_rate must be a number, got 'fast'"),
        ("learning_rate", 0, "learning_rate must be above 0, got 0.0"),
        ("learning_rate", "nan", "learning_rate must be above 0, got nan"),
        ("eval_share", 1, "eval_share must be at least 0 and below 1, got 1.0"),
        ("bias", "yes", "bias must be true or false, got 'yes'"),
        ("model", 7, "model must be text, got 7"),
        ("layers", [1.5], r"layers must be a list of numbers or slices, got \[1.5\]"),
        ("schedule", "cosin", r"schedule must be one of linear, cosine, constant, got 'cosin' \(did you mean 'cosine'"),
        ("seed", None, "seed must be a whole number, got None"),
    ],
)
def test_wrong_values_raise_with_the_allowed_ones(name: str, value: object, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        TrainSettings.from_mapping({name: value})


def test_every_setting_has_help_and_a_panel() -> None:
    assert all(item.metadata["help"].endswith(".") and item.metadata["panel"] for item in fields(TrainSettings))


@pytest.mark.parametrize("name", ["run.yaml", "run.json"])
def test_config_file_contains_settings(name: str, tmp_path: Path) -> None:
    values = {"learning-rate": 1e-3, "layers": ["-2:"]}
    text = json.dumps(values) if name.endswith("json") else "learning-rate: 1e-3\nlayers: ['-2:']\n"
    (tmp_path / name).write_text(text)
    settings = TrainSettings.from_mapping(read_config_file(tmp_path / name))
    assert (settings.learning_rate, settings.layers) == (1e-3, ("-2:",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "a: [", "is not valid: while parsing"),
        ("run.json", "a: 1", "is not valid: Expecting value"),
        ("run.yaml", "- a", "must contain one 'name: value' per line"),
        ("run.yaml", "", "must contain one 'name: value' per line"),
        ("run.yaml", None, "cannot be read: No such file or directory"),
    ],
)
def test_malformed_config_file_raises(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ActshiftError, match=message) as caught:
        read_config_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_help_lists_exactly_the_registered_names() -> None:
    phases_of_lofit = {"head_scale", "head_vector"}
    assert set(settings.ADAPTERS) == ADAPTERS.keys() - phases_of_lofit | {"lofit"}
    assert list(settings.SITES) == list(SITES)
    assert set(settings.OBJECTIVES) == OBJECTIVES.keys()
    assert list(settings.SUMMARIES) == [OBJECTIVES[name].summary for name in settings.OBJECTIVES]
    assert set(settings.REWARDS) == REWARDS.keys()
    help_texts = {item.name: item.metadata["help"] for item in fields(TrainSettings)}
    for name, values in (("adapter", ADAPTERS.keys() - phases_of_lofit), ("site", SITES), ("objective", OBJECTIVES)):
        assert set(values) <= set(re.findall(r"\w+", help_texts[name]))
    assert set(REWARDS) <= set(re.findall(r"\w+", help_texts["reward"]))


def test_unknown_objective_suggests_the_nearest_name() -> None:
    with pytest.raises(ActshiftError, match=r"objective must be one of .*sft, got 'stf' .did you mean 'sft'"):
        TrainSettings(objective="stf")
