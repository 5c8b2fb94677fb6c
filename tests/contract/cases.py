"""The cases of the contract tests: every adapter at every site of every architecture.

Fast tests run the default adapter at every site of every architecture. They run each other adapter at its usual site on
a few architectures with different hosts: linear maps, Conv1D, an encoder, an encoder-decoder. All other combinations
are slow tests.
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
from actshift.adapters import ADAPTERS as REGISTERED
from actshift.adapters import DiReFT, HeadAdapter, HeadScale, HeadVector, JoLA, LoReFT, NoReFT
from actshift.sites import SITES
from tests.zoo import ARCHITECTURES, example_inputs, output_of

ADAPTERS = {
    "vector": Vector(),
    "linear": LowRank(rank=4, activation=None),
    "nonlinear": LowRank(rank=4),
    "bias": LowRank(rank=4, activation="tanh", bias=True),
    "loreft": LoReFT(rank=4),
    "noreft": NoReFT(rank=4),
    "direft": DiReFT(rank=4),
    "head_scale": HeadScale(),
    "head_vector": HeadVector(heads=(0, 2)),
    "jola": JoLA(),
}
_KINDS = {adapter.kind for adapter in ADAPTERS.values()}
ADAPTERS |= {kind: cls() for kind, cls in REGISTERED.items() if kind not in _KINDS}  # a new adapter needs no entry
HEADS_ONLY = {name for name, adapter in ADAPTERS.items() if isinstance(adapter, HeadAdapter)}
OWN_SITE = {**dict.fromkeys(ADAPTERS, "post_block"), **dict.fromkeys(HEADS_ONLY, "attention_heads")}
FEW = ("llama", "gpt2", "bert", "t5")


def _is_fast(name: str, adapter: str, site: str) -> bool:
    return adapter == "nonlinear" or (name in FEW and site == OWN_SITE[adapter])


def cases(architectures=tuple(ARCHITECTURES)):
    """Parametrise a test by architecture, adapter and site."""
    return pytest.mark.parametrize(
        ("name", "adapter", "site"),
        [
            pytest.param(*case, id="-".join(case), marks=() if _is_fast(*case) else pytest.mark.slow)
            for case in product(architectures, ADAPTERS, SITES)
            if case[1] not in HEADS_ONLY or case[2] == "attention_heads"
        ],
    )


@cache
def _pristine(name: str) -> PreTrainedModel:
    return ARCHITECTURES[name]()


def fresh_model(name: str) -> PreTrainedModel:
    """Return a new model. It is a copy, which is faster than building one."""
    return copy.deepcopy(_pristine(name))


def config(adapter: str, site: str, **more) -> SteeringConfig:
    return SteeringConfig(adapter=ADAPTERS[adapter], site=site, **more)


def randomise(model: torch.nn.Module, scale: float = 0.3) -> None:
    """Fill every trainable tensor with random values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def steered_model(name: str, adapter: str, site: str, **more):
    """Return a model with random adapter weights, in eval mode."""
    model = attach(fresh_model(name), config(adapter, site, **more))
    randomise(model)
    return model.eval()


@torch.no_grad()
def run(model: torch.nn.Module, name: str, **extra) -> Tensor:
    return output_of(model(**example_inputs(name), **extra))
