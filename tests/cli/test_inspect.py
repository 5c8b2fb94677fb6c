"""`actshift inspect` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_an_adapters_sites_shapes_and_norms_are_shown(actshift: Run, model: Path, adapter: Path) -> None:
    code, out, err = actshift("inspect", adapter)
    assert (code, err) == (0, "")
    for text in (str(model), "LowRank(rank=4", "post_block", "768 float32", "% of the base", "4×32", "W_up·W_down"):
        assert text in out
    assert all(f"model.layers.{layer} " in out for layer in range(3))


def test_a_models_blocks_and_sites_are_shown(actshift: Run, model: Path) -> None:
    code, out, err = actshift("inspect", model)
    assert (code, err) == (0, "")
    for text in ("LlamaForCausalLM", "3 LlamaDecoderLayer, d_model 32", "model.layers.0…2.self_attn", "1,536"):
        assert text in out


def test_json_of_a_model_and_of_an_adapter(actshift: Run, model: Path, adapter: Path) -> None:
    assert json.loads(actshift("inspect", model, "--json").out)["d_model"] == 32
    described = json.loads(actshift("inspect", adapter, "--json").out)
    assert (described["kind"], described["parameters"], len(described["sites"])) == ("adapter", 768, 3)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_refused(refused, adapter: Path, tmp_path: Path, file: str) -> None:
    broken = Path(shutil.copytree(adapter, tmp_path / "broken"))
    (broken / file).write_bytes((broken / file).read_bytes()[:40])
    assert "damaged" in refused("inspect", broken)


def test_a_folder_that_is_neither_is_refused(refused, tmp_path: Path) -> None:
    assert "no adapter and no model" in refused("inspect", tmp_path)
    assert "no folder" in refused("inspect", tmp_path / "missing")
