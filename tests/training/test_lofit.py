"""LoFiT's first phase, on a model in which only one attention head has an effect."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError
from actshift.training import TrainSettings, train
from actshift.training.lofit import heads_to_keep, phases
from tests.characters import char_tokenizer
from tests.zoo import ARCHITECTURES

LAYERS, HEADS, D_HEAD = 3, 4, 8


def save_with_one_useful_head(folder: Path, layer: int, head: int) -> Path:
    """Save a model whose output projections scale every head but one by 1e-4."""
    model = ARCHITECTURES["llama"]()
    with torch.no_grad():
        for at, block in enumerate(model.model.layers):
            columns = block.self_attn.o_proj.weight.view(-1, HEADS, D_HEAD)
            useful = columns[:, head].clone()
            columns *= 1e-4
            if at == layer:
                columns[:, head] = 5 * useful
    model.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "head"), [(0, 3), (1, 2), (2, 0)])
def test_lofit_selects_the_only_useful_head(settings, tmp_path, layer, head) -> None:
    model = save_with_one_useful_head(tmp_path / "planted", layer, head)
    out = tmp_path / "lofit"
    result = train(
        replace(settings, model=str(model), out=str(out), max_steps=8, adapter="lofit", lofit_heads=1, l1=1e-3)
    )
    assert result.selection is not None and result.selection.heads == {layer: (head,)}
    assert result.fit.trainable == D_HEAD
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["layers"], config["adapter"]) == ([layer], {"kind": "head_vector", "heads": [head]})
    assert f"1 heads (block {layer}: {head})" in (out / "README.md").read_text()


@pytest.mark.slow
def test_progress_names_both_phases(settings, capsys) -> None:
    train(replace(settings, max_steps=4, adapter="lofit"))
    _, err = capsys.readouterr()
    assert "LoFiT 1 of 2, selecting heads 2/2" in err and "LoFiT 2 of 2, training shifts 2/2" in err


@given(st.integers(2, 10**6), st.floats(1e-6, 1 - 1e-6))
def test_phases_split_all_steps(steps: int, share: float) -> None:
    first, second = phases(steps, TrainSettings(adapter="lofit", lofit_steps=share))
    assert first + second == steps and min(first, second) >= 1


def test_heads_to_keep_follows_the_number_or_the_share() -> None:
    assert heads_to_keep(32, TrainSettings(adapter="lofit")) == 3
    assert heads_to_keep(4, TrainSettings(adapter="lofit")) == 1
    assert heads_to_keep(32, TrainSettings(adapter="lofit", lofit_share=1)) == 32
    assert heads_to_keep(32, TrainSettings(adapter="lofit", lofit_heads=5)) == 5
    with pytest.raises(ActshiftError, match="lofit_heads is 33, but the steered blocks have only 32; lower it"):
        heads_to_keep(32, TrainSettings(adapter="lofit", lofit_heads=33))
