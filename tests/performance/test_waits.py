"""Nothing in a training step asks a device for a value: seen on meta tensors, which have none to give."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actshift import JointConfig, JoLA, LoReFT, Orthogonality, SteeringConfig, Vector, attach
from actshift.tuner import layer
from tests.zoo import ARCHITECTURES

WAITING = {"_linalg_eigh", "_linalg_svd", "_linalg_check_errors", "linalg_eig", "linalg_lstsq"}
"""Of what goes through on meta tensors, that of which torch says that it "synchronizes that device with the CPU"."""


class NoWaiting(TorchDispatchMode):
    """Fails where the CPU would look at something on the device before it goes on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in WAITING, f"{func} waits for the device"
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
        mask = torch.zeros(2, 1, 8, 8)  # whole, as transformers would look into a shorter one, and into positions
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)

    def step():
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_does_not_wait(name, monkeypatch):
    # On the meta device there is no autocast, and adapters are called, as an offloader has to put them in place.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)
    monkeypatch.setattr(layer, "usable_factors", lambda adapter: adapter.factors())
    step = training_step(CONFIGS[name], "meta")
    with NoWaiting():
        step()


def test_that_is_seen():
    there = torch.ones(3, 3, device="meta")
    with NoWaiting():
        for ask in (lambda t: bool(t.isfinite().all()), lambda t: t.nonzero(), lambda t: t.cpu()):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                ask(there)
        for ask in (torch.linalg.eigh, torch.linalg.svd, torch.linalg.cholesky):
            with pytest.raises(AssertionError, match="waits"):
                ask(there)
