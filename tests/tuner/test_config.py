"""SteeringConfig: defaults, refused values, and the stored file."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
from peft import PeftConfig

from actshift import ActshiftError, LowRank, SteeringConfig, Vector
from actshift.tuner import read_config


def test_default_is_the_papers_method():
    config = SteeringConfig()
    assert config.adapter == LowRank(rank=8, activation="silu", bias=False, init="default")
    assert (config.site, config.layers, config.peft_type) == ("post_block", None, "ACTSHIFT")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rnak": 8}, "Unknown field 'rnak' of SteeringConfig .did you mean 'rank'"),
        ({"lora_alpha": 32}, "Unknown field 'lora_alpha'"),
        ({"target_modules": ["q_proj"]}, "Unknown field 'target_modules'"),
        ({"rank": 0}, "rank must be a whole number from 1 up"),
        ({"site": "post_blok"}, "did you mean 'post_block'"),
        ({"layers": 3}, "layers must be a list or range"),
        ({"layers": "all"}, "layers must be a list or range"),
        ({"layers": [0.5]}, "layers must be a list or range"),
        ({"adapter": "vector"}, "adapter must be an adapter such as"),
        ({"adapter": LowRank(4), "rank": 8}, "rank=8 contradicts"),
        ({"adapter": Vector(), "rank": 8}, "rank=8 contradicts"),
        ({"format": 2}, "format 2 and this actshift reads format 1"),
    ],
)
def test_invalid_fields_raise_one_line_errors(fields, message):
    with pytest.raises(ActshiftError, match=message) as caught:
        SteeringConfig(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        SteeringConfig(rank=4, init="reference", layers=range(-2, 0), task_type="CAUSAL_LM"),
        SteeringConfig(adapter=Vector(), site="post_mlp", layers=[0, 2], modules_to_save=["score"]),
    ],
)
def test_config_survives_copies_json_and_pickle(config, tmp_path):
    for twin in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        dataclasses.replace(config),
        SteeringConfig(**json.loads(json.dumps(config.to_dict()))),
    ):
        assert twin.to_dict() == config.to_dict()
    assert dataclasses.replace(config, site="post_attention").site == "post_attention"


def test_file_contains_no_field_of_lora(tmp_path):
    SteeringConfig().save_pretrained(str(tmp_path))
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert not {"r", "lora_alpha", "target_modules", "use_dora"} & set(stored)
    assert stored["adapter"] == {
        "kind": "low_rank",
        "rank": 8,
        "activation": "silu",
        "bias": False,
        "init": "default",
    }


def test_unknown_fields_in_a_file_raise_errors(tmp_path, adapter_folder):
    path = adapter_folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokens": "prompt"}))
    for read in (read_config, SteeringConfig.from_pretrained, PeftConfig.from_pretrained):
        with pytest.raises(ActshiftError, match="Unknown field 'tokens'"):
            read(str(adapter_folder))
