"""A saved base model and a saved adapter on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from actshift import SteeringConfig, Vector, attach
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    ARCHITECTURES["llama"]().save_pretrained(folder)
    return folder


@pytest.fixture
def base(base_folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base_folder)


@pytest.fixture
def adapter_folder(base_folder: Path, tmp_path: Path) -> Path:
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    model = attach(base, SteeringConfig(rank=4, task_type="CAUSAL_LM"))
    randomise(model)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


@pytest.fixture
def two(base):
    """Return a model with adapters "first" (low rank, every block, active) and "second" (vector, last block)."""
    model = attach(base, SteeringConfig(rank=4), adapter_name="first")
    randomise(model)
    model.add_adapter("second", SteeringConfig(adapter=Vector(), layers=[-1], site="post_mlp"))
    model.set_adapter("second")
    randomise(model)
    model.set_adapter("first")
    return model.eval()
