"""Many adapters in one model: memory per adapter, and operations that do not slow down as adapters are added."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import pytest
import torch

from actshift import LoReFT, LowRank, SteeringConfig, Vector, attach
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
    """Return how many Python functions a call runs, a cost that does not depend on the clock or the machine."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def calls_per_operation(model, saved: str, name: str) -> list[int]:
    return [
        calls(lambda: model.add_adapter(name, SteeringConfig(rank=2))),
        calls(lambda: model.load_adapter(saved, f"{name}_loaded", torch_device="cpu")),
        calls(lambda: model.set_adapter(name)),
        calls(lambda: model.set_adapter("first")),
        calls(lambda: model.delete_adapter(f"{name}_loaded")),
    ]


def test_attach_load_switch_and_delete_visit_no_other_adapter(saved):
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first").eval()
    for number in range(3):
        calls_per_operation(model, saved, f"warm{number}")
    few = calls_per_operation(model, saved, "few")
    for number in range(MANY):
        model.add_adapter(f"more{number}", SteeringConfig(rank=2))
    many = calls_per_operation(model, saved, "many")
    # PEFT itself makes a few calls per config. One traversal would be a dozen calls for the adapter of each layer.
    assert all(after - before <= 6 * MANY for before, after in zip(few, many, strict=True)), (few, many)


@torch.no_grad()
def test_a_decoding_step_makes_few_python_calls_for_any_number_of_adapters():
    model = attach(fresh_model("llama"), SteeringConfig(rank=2), adapter_name="first").eval()
    [layer, *_] = steering_layers(model).values()
    token = torch.zeros(1, 1, layer.width)
    steer(layer._host[0], (), token)
    few = calls(lambda: steer(layer._host[0], (), token))
    for number in range(MANY):
        model.add_adapter(f"more{number}", SteeringConfig(rank=2))
    # The weights of a block evict the code from the CPU cache, and a call then takes about a microsecond.
    assert calls(lambda: steer(layer._host[0], (), token)) == few <= 17


@pytest.mark.parametrize(("adapter", "limit"), [(LowRank(rank=2), 9000), (Vector(), 3000), (LoReFT(2), 3000)])
def test_an_adapter_needs_little_more_memory_than_plain_modules(adapter, limit):
    adapter.build(8)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        shifts = [adapter.build(8) for _ in range(50)]
        bytes_per_adapter = (tracemalloc.get_traced_memory()[0] - before) / len(shifts)
    finally:
        tracemalloc.stop()
    assert bytes_per_adapter <= limit  # an empty nn.Module needs 2,100 bytes, and some 300 more after torch.compile
