"""Steered models with random adapters, and their logits."""

from __future__ import annotations

import torch

from actshift import Adapter, LowRank, SteeringConfig, attach
from tests.contract.cases import randomise
from tests.zoo import ARCHITECTURES, example_inputs

LINEAR = LowRank(rank=2, activation=None)


def steered_model(name: str, adapter: Adapter = LINEAR, site: str = "post_mlp", **config):
    model = attach(ARCHITECTURES[name](), SteeringConfig(adapter=adapter, site=site, **config))
    randomise(model)
    return model.eval()


@torch.no_grad()
def logits_of(model, name: str) -> torch.Tensor:
    return model(**example_inputs(name)).logits
