"""Constraints of LoReFT and JoLA on a model: with standard optimisers, in the file, and after loading."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from actshift import JoLA, LoReFT, SteeringConfig, attach, load_adapter
from actshift.sites import SITES
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model, run
from tests.zoo import example_inputs


def _shifts(model):
    return [layer.lora_steer["default"] for layer in steering_layers(model).values()]


def _train(model, optimizer, lr, after=lambda: None, steps=5):
    model.train()
    stepper = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    inputs = example_inputs("llama")
    for _ in range(steps):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        stepper.step()
        stepper.zero_grad()
        after()
    return model.eval()


def _departure(rows):
    return (rows.double() @ rows.double().T - torch.eye(len(rows))).abs().max().item()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("site", SITES)
def test_rows_are_orthonormal_after_every_step_and_in_the_file(site, optimizer, tmp_path):
    model = attach(fresh_model("llama"), SteeringConfig(adapter=LoReFT(rank=4), site=site))

    def check():
        assert max(_departure(shift.write.detach()) for shift in _shifts(model)) < 1e-5

    start = [shift.write.detach().clone() for shift in _shifts(model)]
    _train(model, optimizer, lr=0.3, after=check)
    assert all((shift.write - before).abs().max() > 1e-3 for shift, before in zip(_shifts(model), start, strict=True))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert max(_departure(rows) for name, rows in stored.items() if name.endswith("write")) < 1e-5


@pytest.mark.parametrize("finished", [False, True])
def test_gates_are_the_same_zeros_and_ones_after_saving_and_loading(finished, tmp_path):
    model = attach(fresh_model("llama"), SteeringConfig(adapter=JoLA(l0=0.01, anneal_steps=8), site="attention_heads"))
    _train(model, torch.optim.AdamW, lr=0.5)
    gates = torch.stack([gate(0.33) for shift in _shifts(model) for gate in (shift.scale_gate, shift.vector_gate)])
    assert set(gates.unique().tolist()) == {0, 1}
    evaluated = run(model, "llama")
    if finished:
        for shift in _shifts(model):
            shift.finish()
    model.save_pretrained(tmp_path)
    loaded = load_adapter(fresh_model("llama"), str(tmp_path), trainable=True).eval()
    assert torch.equal(run(model, "llama"), evaluated) and torch.equal(run(loaded, "llama"), evaluated)
    assert torch.equal(run(loaded.train(), "llama"), evaluated) == finished  # finished gates are not sampled
    assert [int(shift.step) for shift in _shifts(loaded)] == [5, 5, 5]  # the temperature schedule continues
