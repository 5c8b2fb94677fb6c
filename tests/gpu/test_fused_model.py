"""A whole model computes by the fused kernels what it computes without; run as `test_fused.py` is."""

from __future__ import annotations

import pytest
import torch

from actshift import JointConfig, SteeringConfig, attach, fused_kernels
from tests.contract.cases import fresh_model, randomise
from tests.gpu.kernels import DEVICE, MARKS, count_launches

pytestmark = MARKS
IDS = torch.randint(3, 90, (4, 7), generator=torch.Generator().manual_seed(0))
LAYERS = 3


@pytest.fixture
def launches(monkeypatch):
    yield count_launches(monkeypatch)
    fused_kernels(False)


def steered(config):
    model = attach(fresh_model("llama"), config)
    randomise(model)
    return model.to(DEVICE)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("config", [SteeringConfig(rank=2), JointConfig(r=2, steering=SteeringConfig(rank=2))])
def test_a_training_step(config, checkpointing, launches):
    model = steered(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ids, found = IDS.to(DEVICE), []
    for on in (False, True):
        fused_kernels(on)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        found.append([loss, *torch.autograd.grad(loss, trained)])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
    assert launches.count(False) == LAYERS and launches.count(True) >= LAYERS - 1  # the first needs no gradient of x


def test_generation_with_an_adapter_for_each_row(launches):
    model = steered(SteeringConfig(rank=2)).eval()
    model.add_adapter("other", SteeringConfig(rank=3))
    randomise(model.to(DEVICE))
    ids = IDS.to(DEVICE)
    fixed = dict(attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0)
    names = ["default", "other", "__base__", "default"]
    found = []
    for on in (False, True):
        fused_kernels(on)
        found.append(model.generate(input_ids=ids, adapter_names=names, **fixed))
    assert torch.equal(*found) and len(launches) == 4 * LAYERS
