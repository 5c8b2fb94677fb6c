"""Models loaded with their adapters, and pairs of a base and an updated model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from actshift import ActshiftError
from actshift.cli.models import (
    BASE,
    Base,
    active_adapter,
    head_to_load,
    is_adapter,
    load_model_pair,
    load_steered,
    resolve_base,
    resolve_pair_base,
)
from actshift.model_head import CAUSAL, Head
from tests.encoders import save_encoder
from tests.zoo import example_inputs


def test_the_base_is_the_model_or_what_the_adapter_names(
    model: Path, adapter: Path, lora: Path, tmp_path: Path
) -> None:
    assert resolve_base("other", [str(adapter)]) == Base("other")
    assert resolve_base(None, [str(adapter)]) == resolve_pair_base(None, str(lora)) == Base(str(model))
    assert resolve_pair_base("other", "fine-tuned", "v1") == Base("other", "v1")
    nameless = Path(shutil.copytree(lora, tmp_path / "nameless"))
    config = json.loads((nameless / "adapter_config.json").read_text())
    (nameless / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ActshiftError, match="does not name its base model"):
        resolve_pair_base(None, str(nameless))


def test_a_folder_is_an_adapter_or_a_model(model: Path, adapter: Path, lora: Path) -> None:
    assert [is_adapter(str(folder)) for folder in (model, adapter, lora)] == [False, True, True]


def test_each_loaded_adapter_can_be_activated_alone(adapter: Path, vector: Path) -> None:
    model, _, names = load_steered(None, [str(adapter), str(vector)], 1.0, False)
    logits = {}
    for name in (BASE, *names):
        with active_adapter(model, name), torch.no_grad():
            logits[name] = model(**example_inputs("llama")).logits
    assert names == ["adapter1", "adapter2"]
    assert not any(torch.equal(logits[BASE], logits[name]) for name in names)
    assert not torch.equal(logits["adapter1"], logits["adapter2"])


def test_the_head_is_that_of_the_adapter_or_requested_or_the_models_own(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    save_encoder(tmp_path / "encoder")
    requested = Head("SEQ_CLS", ("no", "yes"))
    assert head_to_load(Base(str(model)), [str(adapter)], requested=requested) == CAUSAL
    assert head_to_load(Base(str(tmp_path / "encoder")), [], requested=requested) == requested
    assert head_to_load(Base(str(model)), []) == CAUSAL
    assert head_to_load(Base(str(tmp_path / "encoder")), []) == Head("FEATURE_EXTRACTION")


def test_a_pair_has_the_lora_merged_into_the_second_model(model: Path, lora: Path) -> None:
    base, updated, _ = load_model_pair(Base(str(model)), str(lora), False)
    steered, _, _ = load_steered(str(model), [str(lora)], 1.0, False)
    with torch.no_grad():
        plain, merged, adapted = (loaded(**example_inputs("llama")).logits for loaded in (base, updated, steered))
    assert not hasattr(updated, "peft_config") and not torch.allclose(plain, merged)
    torch.testing.assert_close(merged, adapted)
