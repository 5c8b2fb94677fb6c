"""Wrong types and values in every field of a config raise a one-line error, in Python and in adapter_config.json."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftConfig

from actshift import ActshiftError, HeadVector, Intervention, JointConfig, LowRank, SteeringConfig, Vector, attach
from actshift.tuner import read_config
from actshift.tuner.loading import load_any_adapter
from tests.contract.cases import fresh_model, randomise

STEERING: dict[str, Any] = {"adapter": {"kind": "low_rank", "rank": 2}}
JOINT: dict[str, Any] = {"r": 2, "target_modules": "all-linear", "steering": STEERING}

NO_TEXT = [5, True, [], {}, 1.5, "a\x1b[31m", "a\0b", "\ud800", "x" * 5000]
NO_COUNT = ["4", 0, -1, 1.5, True, [], {}, 2**40]
NO_SWITCH = ["yes", None, [], {}, 1, 0.0]
NO_NUMBER = ["16", None, [], {}, True, float("nan"), float("inf"), 10**400]
NO_NAMES = [5, True, [5], [None], [""], [["x"]], {"a": 1}, ["\x1b"], ["x"] * 10_001]
NO_PATTERN = ["(", "[z-a]", "(?P<idx>a)(?P<idx>b)", "*", r"\1", "x" * 20_001]

WRONG_STEERING: dict[tuple[Any, ...], list[Any]] = {
    ("task_type",): [5, "CAUSAL", "", [], {}, True],
    ("auto_mapping",): [5, "x", [], {"a": []}, True],
    ("peft_version",): NO_TEXT,
    ("base_model_name_or_path",): [5, True, [], {}, 1.5, "a\0b", "\ud800", "x" * 20_001],
    ("revision",): NO_TEXT,
    ("inference_mode",): NO_SWITCH,
    ("modules_to_save",): [*NO_NAMES, "score", ["(a+)+$"], ["a|b"], [".*"]],
    ("blocks",): [*NO_TEXT, ""],
    ("format",): [2, "1", None, [], True, 1.5],
    ("d_model",): NO_COUNT,
    ("num_blocks",): NO_COUNT,
    ("rank",): NO_COUNT,
    ("init",): [5, "zeros", [], {}],
    ("adapter",): [5, "vector", [], True, {}, {"kind": 5}, {"kind": []}, {"kind": "hologram"}, {"rank": 4}],
    ("adapter", "rank"): [*NO_COUNT, None],
    ("adapter", "activation"): [5, "sin", [], {}, True],
    ("adapter", "bias"): NO_SWITCH,
    ("adapter", "init"): [5, None, "zeros", [], {}],
    ("adapter", "colour"): [1],
    ("site",): [5, "post_blok", [], {}, True],
    ("layers",): [5, "all", {}, [0.5], ["0"], [True], [None], [[0]], True, [0] * 10_001],
    ("positions",): [5, "prompt", [], True, {}, {"where": 5}, {"where": []}, {"where": "end"}, {"where": "ends"}],
    ("positions", "first"): [-1, "1", 1.5, None, [], True, 2**40],
    ("positions", "colour"): [1],
    ("interventions",): [5, "x", [], {}, True, [5], [None], ["x"], [[]], [{"colour": 1}], [{}] * 10_001],
    ("interventions", 0, "adapter"): [5, "x", None, {}],
    ("interventions", 0, "layers"): [5, "x", ["x"]],
    ("interventions", 0, "site"): [5, None, "x"],
    ("interventions", 0, "positions"): [5, None, "x", {}],
}
WRONG_ADAPTERS: dict[str, dict[str, list[Any]]] = {
    "vector": {"rank": [2]},
    "loreft": {"rank": [0, "2", None]},
    "noreft": {"rank": [0, 1.5]},
    "direft": {"rank": [-1, []]},
    "head_scale": {"l1": [-1, "x", None, [], float("nan"), True, 10**400]},
    "head_vector": {"heads": [[], 5, "01", [0, 0], [-1], [0.5], ["0"], {}, True, list(range(10_001))]},
    "jola": {
        "l0": [-1, "x", None, float("inf")],
        "temperature": [0, 2, "x", None, []],
        "end_temperature": [0, 2, "x", None],
        "anneal_steps": [0, -1, 1.5, "x", [], True, 2**40],
    },
}
WRONG_JOINT: dict[tuple[Any, ...], list[Any]] = {
    ("r",): [*NO_COUNT, None, 10**9],
    ("lora_alpha",): NO_NUMBER,
    ("lora_dropout",): [*NO_NUMBER, -0.1, 1.1],
    ("target_modules",): [*NO_NAMES, *NO_PATTERN, None, [], ""],
    ("target_parameters",): [*NO_NAMES, "experts"],
    ("exclude_modules",): [*NO_NAMES, "("],
    ("layers_to_transform",): ["0", [0.5], ["0"], True, -1, {}, [0] * 10_001],
    ("layers_pattern",): [5, [5], {}, True, "(", ["("]],
    ("rank_pattern",): [5, "x", [], {"a": "2"}, {"a": 0}, {"a": 10**9}, {"(": 2}, {"": 2}, True],
    ("alpha_pattern",): [5, "x", [], {"a": "2"}, {"a": None}, {"(": 2}, True],
    ("use_rslora",): NO_SWITCH,
    ("fan_in_fan_out",): NO_SWITCH,
    ("init_lora_weights",): [
        5,
        None,
        [],
        "pissa",
        "pissa_niter_4",
        "olora",
        "corda",
        "loftq",
        "lora_ga",
        "/etc/passwd",
    ],
    ("steering",): [5, "x", [], True, {"steering": {}}],
    ("steering", "adapter"): [5, {"kind": 5}],
    ("steering", "layers"): [5, "x"],
    ("steering", "rank"): [0, "2"],
    ("steering", "self"): [1],
    ("steering", "cls"): [1],
    ("orthogonality",): [5, "read", [], True, {"colour": 1}],
    ("orthogonality", "side"): [5, "up", None, []],
    ("orthogonality", "every"): [0, "day", 1.5, [], True, None],
    ("orthogonality", "penalty"): [-1, 0, "x", [], True, float("nan")],
    ("colour",): [1],
    ("self",): [1],
    ("cls",): [1],
}
TABLE = [
    *((STEERING, path, value) for path, values in WRONG_STEERING.items() for value in values),
    *((JOINT, path, value) for path, values in WRONG_JOINT.items() for value in values),
    *(
        ({"adapter": {"kind": kind}, "site": "attention_heads"}, ("adapter", name), value)
        for kind, fields in WRONG_ADAPTERS.items()
        for name, values in fields.items()
        for value in values
    ),
]


def with_value(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy of a config with another value at a path; interventions replace the fields of a single one."""
    changed = {} if path[0] == "interventions" else copy.deepcopy(config)
    inner: Any = changed
    for key, following in pairwise(path):
        if isinstance(inner, dict):
            inner.setdefault(key, [{}] if isinstance(following, int) else {})
        inner = inner[key]
    if path[:-1] == ("positions",):
        inner["where"] = "ends"
    inner[path[-1]] = value
    return changed


def check_message(error: pytest.ExceptionInfo[ActshiftError], path: tuple[Any, ...]) -> None:
    message = str(error.value)
    assert any(str(part).rstrip("s") in message.lower() for part in path), message
    assert message.isprintable() and "nexpected" not in message and len(message) < 1000, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    attach(fresh_model("llama"), SteeringConfig(rank=2)).save_pretrained(str(folder))
    return folder


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 300


@pytest.mark.parametrize(
    ("config", "path", "value"), TABLE, ids=[f"{'.'.join(map(str, row[1]))}-{n}" for n, row in enumerate(TABLE)]
)
def test_a_wrong_value_is_one_clear_line(config, path, value, folder) -> None:
    values = with_value(config, path, value)
    with pytest.raises(ActshiftError) as caught:
        (JointConfig if config is JOINT else SteeringConfig)(**values)
    check_message(caught, path)
    if isinstance(value, int) and abs(value) > 2**64:
        return  # JSON has no such number
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "ACTSHIFT", **values}))
    with pytest.raises(ActshiftError) as caught:
        (read_config, SteeringConfig.from_pretrained, PeftConfig.from_pretrained)[len(str(path)) % 3](str(folder))
    check_message(caught, path)


def test_the_command_line_says_so_too(folder, capsys) -> None:
    from actshift.cli.main import main

    for values in ({"modules_to_save": 5}, {"blocks": "\x1b[2J"}, {"positions": {"where": ["\x1b"]}}, {"\x1b[31m": 1}):
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "ACTSHIFT", **STEERING, **values}))
        assert main(["inspect", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.strip().isprintable() and "nexpected" not in error, error


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70_000)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["all-linear", "q_proj", "(a+)+$", "low_rank", "vector", "post_mlp", "prompt", "CAUSAL_LM", "lm_head"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
SAVED = {
    "steering": SteeringConfig(rank=2, task_type="CAUSAL_LM"),
    "several": SteeringConfig(interventions=[Intervention(LowRank(2), layers=[0]), Intervention(Vector(), layers=[1])]),
    "heads": SteeringConfig(adapter=HeadVector(heads=(0, 1)), site="attention_heads"),
    "joint": JointConfig(r=2, steering=SteeringConfig(rank=2), target_modules=["q_proj", "down_proj"]),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    folders = {name: tmp_path_factory.mktemp(name) for name in SAVED}
    for name, config in SAVED.items():
        model = attach(fresh_model("llama"), config)
        randomise(model)
        model.save_pretrained(str(folders[name]))
    return {name: (path, json.loads((path / "adapter_config.json").read_text())) for name, path in folders.items()}


def paths_in(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside of JSON values."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [inner for key, value in items for inner in ((*path, key), *paths_in(value, (*path, key)))]


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of JSON values with another one at a path."""
    copied = copy.deepcopy(values)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_in_a_config_loads_or_is_one_clear_line(data, saved, fuzzed_base) -> None:
    folder, values = saved[data.draw(st.sampled_from(sorted(SAVED)))]
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in paths_in(values) if path != ("peft_type",)]))
        values = replaced(values, path, data.draw(JSON))
    (folder / "adapter_config.json").write_text(json.dumps(values))
    before = {name: tensor.clone() for name, tensor in fuzzed_base.state_dict().items()}
    try:
        load_any_adapter(fuzzed_base, str(folder)).unload()
    except ActshiftError as error:
        assert str(error).isprintable() and "nexpected" not in str(error) and len(str(error)) < 2100
    after = fuzzed_base.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not hasattr(fuzzed_base, "peft_config")


@pytest.fixture(scope="module")
def fuzzed_base():
    return fresh_model("llama")
