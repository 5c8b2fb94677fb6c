from __future__ import annotations

from typing import Any

import pytest

from actshift import ActshiftError
from actshift.compare import Method
from actshift.compare.methods import METHODS, PRESETS
from actshift.training.configs import AdapterSpec


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "a/b"}, "cannot be called 'a/b'"),
        ({"name": "base"}, "cannot be called 'base'"),
        ({"rates": ()}, r"needs learning rates, each once; got \[\]"),
        ({"rates": (1e-3, 0.001)}, "needs learning rates, each once"),
        ({"rates": ("fast",)}, r"rates of the method mine must be a list of numbers, got \('fast',\)"),
        ({"rates": 1e-3}, "rates of the method mine must be a list of numbers, got 0.001"),
        ({"rates": (-1e-3,)}, "In the method mine: learning_rate must be above 0"),
        ({"lora_rates": (1e-4,)}, "has 2 rates and 1 lora_rates; give one for each"),
        ({"settings": {"rnak": 2}}, r"unknown setting 'rnak' \(did you mean 'rank'\?\)"),
        ({"settings": {"rank": "two"}}, "In the method mine: rank must be a whole number, got 'two'"),
        ({"settings": {"seed": 3}}, "seed is the comparison's, not that of the method mine"),
        ({"settings": {"epochs": 3}}, "sets epochs, which must be equal for all methods; set it under 'common'"),
    ],
)
def test_a_wrong_method_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ActshiftError, match=told):
        Method(**{"name": "mine", "label": "mine", "rates": (1e-3, 2e-3), **given})


def test_each_half_of_joint_has_its_own_rate() -> None:
    joint = METHODS["joint"]
    settings = [joint.cell_settings(rate, seed=0) for rate in joint.rates]
    assert [one.learning_rate for one in settings] == [5e-4, 1e-3, 2e-3, 3e-3, 5e-3]
    assert [one.lora_learning_rate for one in settings] == [5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3]
    assert {(one.schedule, one.warmup, one.orthogonality) for one in settings} == {("cosine", 0.06, "read")}


def test_a_methods_own_settings_win_over_common_ones() -> None:
    assert METHODS["joint"].cell_settings(1e-3, seed=0, schedule="constant").schedule == "cosine"
    assert METHODS["vector"].cell_settings(1e-3, seed=0, schedule="constant").schedule == "constant"


def test_every_named_method_can_be_built() -> None:
    for method in METHODS.values():
        AdapterSpec.from_settings(method.cell_settings(method.rates[0], seed=0))
        assert len(method.rates) == 5
    assert set(PRESETS["paper"]) <= set(METHODS)
