"""Costs that do not depend on the clock: saved bytes, operations per step, visited modules, and imports."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actshift import JointConfig, LoReFT, SteeringConfig, Vector, attach
from actshift.tuner import steering_layers
from actshift.tuner.traversal import modules_around_adapters
from benchmarks.memory import kept_bytes
from benchmarks.plain import floor, lora
from tests.contract.cases import fresh_model, randomise
from tests.zoo import ARCHITECTURES

IDS = torch.randint(3, 90, (4, 16), generator=torch.Generator().manual_seed(0))
RANK, WIDTH, LAYERS = 2, 64, 3


class Operations(TorchDispatchMode):
    """Count the operations that run, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket.__name__ != "_unsafe_view":
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def llama(dtype: torch.dtype = torch.float32):
    return ARCHITECTURES["llama"](hidden_size=WIDTH).to(dtype)


def steered(dtype: torch.dtype = torch.float32, config: SteeringConfig | None = None):
    model = attach(llama(dtype), config or SteeringConfig(rank=RANK))
    randomise(model)
    return model.train()


def joint(dtype: torch.dtype = torch.float32):
    return steered(dtype, JointConfig(r=RANK, target_modules="all-linear", steering=SteeringConfig(rank=RANK)))


@pytest.mark.parametrize(
    ("weights", "autocast", "limit"),
    [
        (torch.float32, None, 1.02),
        (torch.float32, torch.bfloat16, 1.02),
        (torch.bfloat16, None, 1.16),  # the norm saves a float32 copy of its input, so only we save the sum
    ],
)
def test_a_step_saves_hardly_more_bytes_than_the_floor(weights, autocast, limit):
    def saved_bytes(model) -> int:
        return kept_bytes(model.train(), IDS, autocast)

    assert saved_bytes(steered(weights)) <= limit * saved_bytes(floor(llama(weights)))
    assert saved_bytes(joint(weights)) <= limit * saved_bytes(lora(llama(weights), RANK))


def training_operations(model) -> Counter[str]:
    model.train()
    with Operations() as operations:
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return operations.counts


def decoding_operations(model) -> Counter[str]:
    model.eval()
    with torch.no_grad():
        cache = model(input_ids=IDS, use_cache=True).past_key_values
        with Operations() as operations:
            model(input_ids=IDS[:, :1], past_key_values=cache, use_cache=True)
    return operations.counts


@pytest.mark.parametrize(("ours", "base"), [(steered, lambda: floor(llama())), (joint, lambda: lora(llama(), RANK))])
def test_a_training_step_adds_few_operations(ours, base):
    more = training_operations(ours()) - training_operations(base())
    of_a_layer = dict(mm=6, mul=3, addmm=2, silu=2, silu_backward=1, sub=1, clone=1, new_empty_strided=1, copy_=1)
    assert not more - Counter({name: LAYERS * count for name, count in of_a_layer.items()})


@pytest.mark.parametrize(("ours", "base"), [(steered, llama), (joint, lambda: lora(llama(), RANK))])
def test_a_decoding_step_adds_few_operations(ours, base):
    more = decoding_operations(ours()) - decoding_operations(base())
    assert more == {"mm": 2 * LAYERS, "silu": LAYERS, "add": LAYERS}


def test_adapters_per_row_need_one_batched_product():
    model = attach(fresh_model("llama"), SteeringConfig(rank=RANK), adapter_name="a0").eval()
    for number in range(1, 4):
        model.add_adapter(f"a{number}", SteeringConfig(rank=RANK))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad(), Operations() as base:
        fresh_model("llama").eval()(IDS)
    counts = []
    for names in (["a0", "a1", "a0", "a1"], ["a0", "a1", "a2", "a3"]):
        with torch.no_grad(), model.base_model._enable_peft_forward_hooks(adapter_names=names), Operations() as ours:
            model.get_base_model()(IDS)
        counts.append(ours.counts - base.counts)
    assert counts[0] == counts[1] and counts[0].total() <= 4 * LAYERS


@pytest.mark.parametrize(
    "config", [JointConfig(r=2, steering=SteeringConfig(rank=2)), SteeringConfig(adapter=LoReFT(2))]
)
def test_operations_after_an_optimiser_step_do_not_grow_with_the_layers(config):
    counts = []
    for layers in (2, 6):
        model = attach(ARCHITECTURES["llama"](num_hidden_layers=layers), config)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        with Operations() as operations:
            optimizer.step()  # without gradients only the hooks run
        copies = {"copy_": operations.counts["copy_"], "cat": operations.counts["cat"]}
        counts.append(operations.counts - Counter(copies))
    assert counts[0] == counts[1] and counts[0].total() > 0


def test_switching_visits_no_inactive_adapter():
    model = steered()
    before = sum(1 for _ in modules_around_adapters(model))
    model.add_adapter("second", SteeringConfig(rank=RANK))
    assert sum(1 for _ in modules_around_adapters(model)) == before
    for layer in steering_layers(model).values():
        layer.lora_steer["third"] = Vector().build(1)  # neither named nor trained before, so not visited
    model.set_adapter("second")
    assert all(layer.lora_steer["third"].vector.requires_grad for layer in steering_layers(model).values())


@pytest.mark.parametrize("start", ["import actshift", "import actshift.cli.main"])
def test_startup_imports_no_heavy_library(start):
    heavy = "torch transformers peft numpy datasets accelerate trl matplotlib jinja2 yaml".split()
    code = f"import sys; {start}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
