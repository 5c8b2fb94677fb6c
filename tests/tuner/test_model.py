"""Adapters on a model: several, switched, deleted, copied, and saved."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, LowRank, SteeringConfig, attach
from actshift.tuner import steering_layers
from actshift.tuner.run_state import overrides
from tests.contract.cases import randomise, run


def test_switching_adapters_and_activating_both(two):
    first = run(two, "llama")
    two.set_adapter("second")
    second = run(two, "llama")
    two.base_model.set_adapter(["first", "second"])
    both = run(two, "llama")
    assert not torch.allclose(first, second) and not torch.allclose(both, first)
    with two.disable_adapter():
        base = run(two, "llama")
    two.set_adapter("first")
    assert torch.equal(run(two, "llama"), first)
    assert not torch.allclose(base, first)


def test_only_the_active_adapter_is_trainable(two):
    for name in ("first", "second"):
        two.set_adapter(name)
        trainable = {n for n, p in two.named_parameters() if p.requires_grad}
        assert trainable and all(f".lora_steer.{name}." in n for n in trainable)


def test_each_adapter_is_saved_alone(two, base_folder, tmp_path):
    two.save_pretrained(str(tmp_path))
    for name in ("first", "second"):
        two.set_adapter(name)
        expected = run(two, "llama")
        fresh = AutoModelForCausalLM.from_pretrained(base_folder)
        loaded = PeftModel.from_pretrained(fresh, str(tmp_path / name), adapter_name="other")
        assert torch.equal(run(loaded, "llama"), expected)


def test_deleting_adapters(two):
    with two.disable_adapter():
        base = run(two, "llama")
    two.set_adapter("second")
    second = run(two, "llama")
    two.delete_adapter("first")
    assert torch.equal(run(two, "llama"), second)
    two.delete_adapter("second")
    assert torch.equal(run(two.base_model.model, "llama"), base)  # a PeftModel without adapters raises an error
    assert not any(".lora_steer." in name for name, _ in two.named_parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_independent(two, duplicate):
    expected = run(two, "llama")
    twin = duplicate(two)
    assert torch.equal(run(twin, "llama"), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(run(two, "llama"), expected)
    base = twin.unload()
    assert not steering_layers(base) and not any(m._forward_hooks for m in base.modules() if m in base.model.layers)
    assert steering_layers(two)


def test_merging_and_weighting_are_refused(two):
    before = run(two, "llama")
    for attempt in (two.merge_adapter, two.merge_and_unload):
        with pytest.raises(ActshiftError, match="Steering adapters cannot be merged"):
            attempt()
    with pytest.raises(ActshiftError, match="cannot combine steering adapters"):
        two.add_weighted_adapter(["first", "second"], [0.5, 0.5], "mean")
    assert torch.equal(run(two, "llama"), before)


def test_invalid_adapter_names_are_refused(two):
    with pytest.raises(ActshiftError, match="adapter_names holds third"):
        run(two, "llama", adapter_names=["first", "third"])
    with pytest.raises(ActshiftError, match="3 entries for a batch of 2 rows"):
        run(two, "llama", adapter_names=["first"] * 3)
    assert overrides() is None
    with pytest.raises((ActshiftError, ValueError)):
        two.train()(input_ids=torch.ones(1, 2, dtype=torch.long), adapter_names=["first"])


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_an_adapter_for_each_row(two, beams):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    settings = dict(max_new_tokens=5, do_sample=False, num_beams=beams)
    mixed = two.generate(input_ids=ids, adapter_names=["first", "second", "__base__"], **settings)
    for row, name in enumerate(["first", "second"]):
        two.set_adapter(name)
        assert torch.equal(two.generate(input_ids=ids[row : row + 1], **settings)[0], mixed[row])
    with two.disable_adapter():
        assert torch.equal(two.generate(input_ids=ids[2:], **settings)[0], mixed[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base_keeps_its_dtype_and_trains_in_float32(base_folder, dtype):
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=dtype)
    expected = run(base, "llama")
    model = get_peft_model(base, SteeringConfig(rank=4))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    out = run(model, "llama")
    assert out.dtype == dtype and torch.equal(out, expected)
    randomise(model)
    assert run(model, "llama").dtype == dtype


def test_loading_with_low_cpu_mem_usage(two, base_folder, tmp_path):
    two.save_pretrained(str(tmp_path), selected_adapters=["first"])
    expected = run(two, "llama")
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base_folder), str(tmp_path / "first"), low_cpu_mem_usage=True
    )
    assert torch.equal(run(loaded, "llama"), expected)


def test_layers_and_parameter_count_of_a_linear_adapter_with_bias(base):
    model = attach(base, SteeringConfig(adapter=LowRank(2, None, bias=True), layers=range(-2, 0)))
    assert [layer.layer_index for layer in steering_layers(model).values()] == [1, 2]
    assert model.get_nb_trainable_parameters()[0] == 2 * LowRank(2, None, bias=True).parameter_count(32)
