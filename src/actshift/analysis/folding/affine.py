"""Whether a shift is affine, and as which matrix."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actshift.tuner import SteeringLayer

ALIKE = 1e-9


@dataclass(frozen=True)
class AffineShift:
    """Δ(x) = M x + c, with `matrix` M `[d, d]` and `constant` c `[d]`, float64."""

    matrix: Tensor
    constant: Tensor


def affine_of(layer: SteeringLayer) -> AffineShift | None:
    """Return what a layer's active adapters add together, strengths included; None where that is not affine.

    It is read off the adapters' values: c = Δ(0), M = Δ(1) - c on the unit vectors, and the sum is tried on random x.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> model = attach(load_base()[0], SteeringConfig(rank=2))  # SiLU, and W_up = 0 still
    >>> from actshift.tuner import steering_layers
    >>> affine_of(next(iter(steering_layers(model).values()))).matrix.any().item()
    False
    """
    matrix = torch.zeros(layer.width, layer.width, dtype=torch.float64)
    constant = torch.zeros(layer.width, dtype=torch.float64)
    tried = 3 * torch.randn(16, layer.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = torch.zeros_like(tried)
    for name in layer.active_adapters:
        strength = layer.strength.get(name, 0.0)
        if not strength or layer.disable_adapters:
            continue
        shift: nn.Module = deepcopy(layer.lora_steer[name]).double().cpu().eval()
        with torch.no_grad():
            still = shift(torch.zeros(1, layer.width, dtype=torch.float64)).reshape(-1)
            columns = shift(torch.eye(layer.width, dtype=torch.float64)).expand(layer.width, -1) - still
            given += strength * shift(tried)
        constant += strength * still
        matrix += strength * columns.T
    missed = given - (tried @ matrix.T + constant)
    return AffineShift(matrix, constant) if missed.norm() <= ALIKE * given.norm() else None
