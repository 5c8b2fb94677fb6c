from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError, LowRank, Vector
from actshift.training import TrainSettings
from actshift.training.configs import AdapterSpec, layer_indices

bounds = st.none() | st.integers(-6, 6)


@given(bounds, bounds, st.sampled_from([None, 1, 2]))
def test_layer_slices_select_what_python_slices_select(start, stop, step):
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    expected = list(range(6))[start:stop:step]
    if expected:
        assert layer_indices([text], 6) == expected
    else:
        with pytest.raises(ActshiftError, match="out of range"):
            layer_indices([text], 6)


@pytest.mark.parametrize("layer", ["4:9", "-7:", "8:", "2:2"])
def test_slices_outside_the_model_raise(layer):
    with pytest.raises(ActshiftError, match=r"out of range: the model has 6 blocks, 0 to 5"):
        layer_indices([layer], 6)


@pytest.mark.parametrize("layer", ["last", "1-3", "", "1:2:3:4", "::0", "1.5"])
def test_malformed_layers_raise(layer):
    with pytest.raises(ActshiftError, match=r"neither a block's index such as -1 nor a Python slice"):
        layer_indices([layer], 6)


def test_config_has_the_adapter_site_and_layers_of_the_settings():
    settings = TrainSettings(rank=2, activation="none", bias=True, layers=(0, "-1:"))
    linear = AdapterSpec.from_settings(settings).config(blocks=6)
    assert (linear.adapter, linear.layers) == (LowRank(rank=2, activation=None, bias=True), [0, 5])
    vector = AdapterSpec.from_settings(TrainSettings(adapter="vector", site="post_mlp")).config(blocks=6)
    assert (vector.adapter, vector.site, vector.layers) == (Vector(), "post_mlp", None)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"adapter": "vectro"}, "did you mean 'vector'"),
        ({"adapter": "vector", "rank": 4}, "vector has no rank"),
        ({"activation": "sliu"}, "did you mean 'silu'"),
        ({"site": "post_blok"}, "did you mean 'post_block'"),
        ({"init": "referense"}, "did you mean 'reference'"),
        ({"rank": 0}, "rank must be"),
    ],
)
def test_unknown_names_raise_without_a_model(values, message):
    with pytest.raises(ActshiftError, match=message):
        AdapterSpec.from_settings(TrainSettings(**values))
