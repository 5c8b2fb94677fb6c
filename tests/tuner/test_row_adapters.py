"""Batches in which each row has its own adapter, compared with a batch for each row."""

from __future__ import annotations

import pytest
import torch

from actshift import HeadScale, LowRank, SteeringConfig, Vector, attach, prompt_lengths
from actshift.sites import Positions
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model, randomise

IDS = torch.randint(3, 90, (5, 6), generator=torch.Generator().manual_seed(0))
MIXTURES = {
    "alike": [dict(rank=4), dict(rank=4)],
    "ranks": [dict(rank=2), dict(rank=5), dict(rank=5, adapter=LowRank(5, bias=True))],
    "activations": [dict(rank=4), dict(adapter=LowRank(3, "tanh")), dict(adapter=Vector())],
    "positions": [dict(rank=4), dict(rank=4, positions=Positions.ends(1, 1)), dict(rank=4, layers=[-1])],
    "kinds": [dict(adapter=Vector()), dict(adapter=HeadScale()), dict(rank=2, positions=Positions.generated())],
}


def several(mixture: str, site: str):
    model = attach(fresh_model("llama"), SteeringConfig(site=site, **MIXTURES[mixture][0]), adapter_name="a0")
    for number, fields in enumerate(MIXTURES[mixture][1:], start=1):
        model.add_adapter(f"a{number}", SteeringConfig(site=site, **fields))
    for number, strength in zip(range(len(MIXTURES[mixture])), (1.0, 0.5, -2.0), strict=False):
        model.set_adapter(f"a{number}")
        randomise(model)
        model.set_strength(strength, f"a{number}")
    return model.eval()


@torch.no_grad()
def logits(model, ids, **more):
    with prompt_lengths(model, [4] * len(ids)):
        return model(input_ids=ids, **more).logits


@pytest.mark.parametrize("mixture", MIXTURES)
def test_rows_equal_batches_of_one_row(mixture):
    model = several(mixture, "attention_heads" if mixture == "kinds" else "post_block")
    last = f"a{len(MIXTURES[mixture]) - 1}"
    names = ["a0", "__base__", "a1", last, "a0"]
    mixed = logits(model, IDS, adapter_names=names)
    for row, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                alone = logits(model, IDS[row : row + 1])
        else:
            model.set_adapter(name)
            alone = logits(model, IDS[row : row + 1])
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_adapter_of_every_row():
    model = several("ranks", "post_block")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model(input_ids=IDS[:2], adapter_names=["a0", "a2"]).logits.square().mean().backward()
    for layer in steering_layers(model).values():
        for name, changed in (("a0", True), ("a1", False), ("a2", True)):
            assert all((p.grad is not None) == changed for p in layer.lora_steer[name].parameters())
