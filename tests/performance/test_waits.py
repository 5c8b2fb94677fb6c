"""A training step never synchronises with the device, tested on meta tensors, which have no values to read."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actshift import JointConfig, JoLA, LoReFT, Orthogonality, SteeringConfig, Vector, attach
from actshift.tuner import layer
from tests.zoo import ARCHITECTURES

SYNCHRONISING = {"_linalg_eigh", "_linalg_svd", "_linalg_check_errors", "linalg_eig", "linalg_lstsq"}
"""Operations that work on meta tensors, but synchronise with the CPU according to the torch documentation."""


class NoSynchronisation(TorchDispatchMode):
    """Fail on an operation that makes the CPU wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in SYNCHRONISING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def rule(**fields):
    return JointConfig(r=2, steering=SteeringConfig(rank=2), orthogonality=Orthogonality(**fields))


CONFIGS = {
    "low-rank": SteeringConfig(rank=2),
    "vector": SteeringConfig(adapter=Vector()),
    "loreft": SteeringConfig(adapter=LoReFT(rank=2)),
    "jola": SteeringConfig(adapter=JoLA(), site="attention_heads"),
    "joint": rule(),
    "joint, both sides": rule(side="both"),
    "joint, by penalty": rule(penalty=0.1),
}


def training_step(config, device):
    with torch.device(device):
        model = attach(ARCHITECTURES["llama"](), config).to(device).train()
        ids = torch.zeros(2, 8, dtype=torch.long)
        mask = torch.zeros(2, 1, 8, 8)  # a full mask, because transformers reads the values of a shorter one
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)

    def step():
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_does_not_synchronise(name, monkeypatch):
    # The meta device has no autocast. `usable_factors` would treat meta tensors as offloaded, and call the adapter.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)
    monkeypatch.setattr(layer, "usable_factors", lambda adapter: adapter.factors())
    step = training_step(CONFIGS[name], "meta")
    with NoSynchronisation():
        step()


def test_the_check_detects_synchronising_operations():
    tensor = torch.ones(3, 3, device="meta")
    with NoSynchronisation():
        for operation in (lambda t: bool(t.isfinite().all()), lambda t: t.nonzero(), lambda t: t.cpu()):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                operation(tensor)
        for operation in (torch.linalg.eigh, torch.linalg.svd, torch.linalg.cholesky):
            with pytest.raises(AssertionError, match="waits"):
                operation(tensor)
