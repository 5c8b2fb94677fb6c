"""The cases of the contract: every adapter at every site of every architecture.

Each check runs on every architecture with the default adapter at every site, and with every adapter at the default
site; the rest of the product is the slow tier's.
"""

from __future__ import annotations

import copy
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from actshift import LowRank, SteeringConfig, Vector, attach
from actshift.sites import SITES
from tests.zoo import ARCHITECTURES, example_inputs, output_of

ADAPTERS = {
    "vector": Vector(),
    "linear": LowRank(rank=4, activation=None),
    "nonlinear": LowRank(rank=4),
    "bias": LowRank(rank=4, activation="tanh", bias=True),
}
EVERYDAY = {("nonlinear", site) for site in SITES} | {(adapter, "post_block") for adapter in ADAPTERS}


def cases(architectures=tuple(ARCHITECTURES)):
    """Parametrise a test by (architecture, adapter, site)."""
    return pytest.mark.parametrize(
        ("name", "adapter", "site"),
        [
            pytest.param(
                *case,
                id="-".join(case),
                marks=() if case[1:] in EVERYDAY else pytest.mark.slow,
            )
            for case in product(architectures, ADAPTERS, SITES)
        ],
    )


@cache
def _pristine(name: str) -> PreTrainedModel:
    return ARCHITECTURES[name]()


def fresh_model(name: str) -> PreTrainedModel:
    """A model of its own for the test: a copy, since building one costs more."""
    return copy.deepcopy(_pristine(name))


def config(adapter: str, site: str) -> SteeringConfig:
    return SteeringConfig(adapter=ADAPTERS[adapter], site=site)


def randomise(model: torch.nn.Module, scale: float = 0.3) -> None:
    """Give every trainable tensor values, as training would have."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))


def steered_model(name: str, adapter: str, site: str):
    """A model with a trained-looking adapter, in eval mode."""
    model = attach(fresh_model(name), config(adapter, site))
    randomise(model)
    return model.eval()


@torch.no_grad()
def run(model: torch.nn.Module, name: str, **extra) -> Tensor:
    return output_of(model(**example_inputs(name), **extra))
