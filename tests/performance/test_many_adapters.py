"""A thousand adapters in one model: what each costs in memory, and that the next is no dearer than the first."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import pytest
import torch

from actshift import LoReFT, LowRank, SteeringConfig, Vector, attach
from actshift.adapters.light import lighten
from actshift.tuner import steering_layers
from actshift.tuner.layer import steer
from tests.contract.cases import fresh_model

MANY = 24


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="saved")
    model.save_pretrained(folder)
    return str(folder / "saved")


def calls(function: Callable[[], object]) -> int:
    """Count the calls of Python functions that a call makes, which the clock and the machine have no part in."""
    count = 0

    def see(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def steps(model, saved: str, name: str) -> list[int]:
    return [
        calls(lambda: model.add_adapter(name, SteeringConfig(rank=2))),
        calls(lambda: model.load_adapter(saved, f"{name}_loaded", torch_device="cpu")),
        calls(lambda: model.set_adapter(name)),
        calls(lambda: model.set_adapter("first")),
        calls(lambda: model.delete_adapter(f"{name}_loaded")),
    ]


def test_attach_load_switch_and_delete_walk_through_no_other_adapter(saved):
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first").eval()
    for number in range(3):
        steps(model, saved, f"warm{number}")
    few = steps(model, saved, "few")
    for number in range(MANY):
        model.add_adapter(f"more{number}", SteeringConfig(rank=2))
    many = steps(model, saved, "many")
    # PEFT asks every config of the model a few things; one walk would be a dozen calls for each layer's adapter.
    assert all(after - before <= 6 * MANY for before, after in zip(few, many, strict=True)), (few, many)


@torch.no_grad()
def test_in_decoding_a_shift_is_few_python_calls_however_many_are_attached():
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first").eval()
    [layer, *_] = steering_layers(model).values()
    token = torch.zeros(1, 1, layer.width)
    steer(layer._host[0], (), token)
    few = calls(lambda: steer(layer._host[0], (), token))
    for number in range(MANY):
        model.add_adapter(f"more{number}", SteeringConfig(rank=2))
    # With the weights of a block between them all are cold in the cache, and each takes about a microsecond.
    assert calls(lambda: steer(layer._host[0], (), token)) == few <= 17


@pytest.mark.parametrize(("adapter", "most"), [(LowRank(rank=2), 2300), (Vector(), 1000), (LoReFT(2), 1400)])
def test_what_python_keeps_of_an_adapter_beside_its_tensors(adapter, most):
    def build():
        made = adapter.build(8)
        lighten(made)
        return made

    build()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = [build() for _ in range(50)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(held)
    finally:
        tracemalloc.stop()
    assert each <= most  # three plain modules alone are 7000


def test_attached_and_loaded_adapters_are_light(saved):
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first")
    model.add_adapter("second", SteeringConfig(rank=2))
    model.load_adapter(saved, "third", torch_device="cpu")
    for layer in steering_layers(model).values():
        for part in layer.lora_steer.modules():
            assert part is layer.lora_steer or not any("hooks" in name for name in vars(part))
