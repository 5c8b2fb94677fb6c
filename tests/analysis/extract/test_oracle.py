from __future__ import annotations

import sys

from actshift.analysis.extract import ModelPair, oracle
from tests.analysis.extract.conftest import TEXT, with_changed_blocks
from tests.analysis.twins import moved
from tests.zoo import ARCHITECTURES


def test_changed_weights_outside_the_blocks_are_named_and_keep_the_oracle_from_being_exact() -> None:
    base = ARCHITECTURES["llama"]()
    everywhere = oracle(ModelPair.of(base, moved(base, 0.3)), TEXT, (1, 4), 1, steps=0)
    assert "lm_head.weight" in everywhere.outside and everywhere.kl_oracle > 1e-3
    in_blocks = oracle(ModelPair.of(*with_changed_blocks()), TEXT, (1, 4), 1, steps=0)
    assert in_blocks.outside == () and in_blocks.kl_oracle < 1e-9 < in_blocks.kl_base


def test_the_cache_of_activations_changes_no_result(monkeypatch) -> None:
    pair = ModelPair.of(*with_changed_blocks())
    cached = oracle(pair, TEXT, (4,), 4, steps=5)
    monkeypatch.setattr(sys.modules[oracle.__module__], "CACHE", 0)
    assert oracle(pair, TEXT, (4,), 4, steps=5) == cached


def test_a_nonlinear_map_starts_as_the_linear_one_and_improves() -> None:
    pair = ModelPair.of(*with_changed_blocks("gpt2"))
    short, longer = (oracle(pair, TEXT, (4,), 4, steps=steps) for steps in (1, 200))
    for first, last in zip(short.layers, longer.layers, strict=True):
        assert abs(first.r2_nonlinear - first.r2[4]) < 0.1
        assert last.r2_nonlinear is not None and last.r2_nonlinear > first.r2[4] - 0.05
