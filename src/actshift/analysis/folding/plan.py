"""Which weight can take over what a steering layer adds, or why none can."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actshift.analysis.capture import inference, observe
from actshift.errors import ActshiftError
from actshift.sites import Host, OutputMap, Positions, find_blocks, mlp_outputs, resolve
from actshift.sites.blocks import unwrap
from actshift.tuner import SteeringLayer, steering_layers

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


PROBE = torch.arange(3, 11)[None]
"""Token ids to run once, to see what a module returns; any will do."""


@dataclass(frozen=True)
class Fold:
    """A linear map `module` called `name` that takes over a shift of its output, or of its input (`at_input`)."""

    layer: int
    site: str
    name: str
    module: nn.Module
    at_input: bool
    shift: AffineShift


def plan_folds(model: Any) -> list[Fold]:
    """Return how every steering layer of a model can be folded, exactly, into the linear map before it.

    y = W m + b with the shift Δ(y) = M y + c becomes (I + M) W m + (I + M) b + c; at a map's input, W (I + M) and
    b + W c. A constant after the block joins the bias of the MLP's last map.

    Raises ActshiftError where a shift is not affine, acts on some tokens only, stands after the block and is no
    constant, or does not stand right behind a linear map.
    Source: arXiv 2603.00425, §3, for ReFT at the MLP's output: ΔW_d = (RᵀW - RᵀR) W_d, and the constant Rᵀb.
    """
    base = unwrap(model)
    folds = [_fold(base, name, layer) for name, layer in steering_layers(model).items()]
    return [fold for fold in folds if fold.shift.matrix.any() or fold.shift.constant.any()]


def _fold(base: nn.Module, name: str, layer: SteeringLayer) -> Fold:
    where = f"{layer.site} of block {layer.layer_index}"
    acting = [one for one in layer.active_adapters if layer.strength.get(one)]
    if any(layer.positions[one] != Positions.all() for one in acting):
        raise ActshiftError(f"{where} is steered at some tokens only, and a weight acts on all; it cannot be merged.")
    shift = affine_of(layer)
    if shift is None:
        raise ActshiftError(
            f"the adapter at {where} is not linear, so no weight equals it; train one with activation=None to merge it."
        )
    if layer.site == "post_block" and shift.matrix.any():
        raise ActshiftError(
            f"the adapter at {where} cannot be merged: it maps the whole residual stream, most of which the skip "
            "carries past every weight of the block; only a vector can be merged there. Steer post_mlp, or keep it."
        )
    blocks, chosen = _blocks(base), [layer.layer_index]
    if layer.at_input:
        host = resolve(base, layer.site, chosen, blocks)[0]
        return Fold(layer.layer_index, layer.site, host.name, linear(host.module, host.name), True, shift)
    site = "post_mlp" if layer.site == "post_block" else layer.site
    host = resolve(base, site, chosen, blocks)[0]
    name, module = _last_map(base, host, where, blocks)
    if layer.site == "post_block":
        _check_sum(base, layer.layer_index, where, blocks)
    return Fold(layer.layer_index, layer.site, name, linear(module, name), False, shift)


def _blocks(base: nn.Module) -> str | None:
    configs: Any = getattr(base, "peft_config", {})
    return next((config.blocks for config in configs.values() if getattr(config, "blocks", None)), None)


def _last_map(base: nn.Module, host: Host, where: str, blocks: str | None) -> tuple[str, nn.Module]:
    """Return the linear map whose output is the host's output, by what both return in one forward."""
    if host.site == "post_mlp":
        maps = mlp_outputs(base, [host.layer], blocks)
    else:
        heads = resolve(base, "attention_heads", [host.layer], blocks)[0]
        maps = [OutputMap(heads.layer, heads.name, heads.module, None, host.width)]
    if len(maps) > 1 or maps[0].parameter is not None:
        raise ActshiftError(f"{where} sums the outputs of experts, weighed token by token; it cannot be merged.")
    if maps[0].module is host.module:
        return maps[0].name, host.module
    with inference(base), _Unsteered(base):
        given, last = observe(base, {"input_ids": PROBE}, [host.module, maps[0].module])
    if not torch.equal(given.output.flatten(), last.output.flatten()):
        raise ActshiftError(
            f"{where} comes after a norm or a scale that follows {maps[0].name}, and no weight gives the same; keep "
            "the adapter attached."
        )
    return maps[0].name, maps[0].module


def _check_sum(base: nn.Module, layer: int, where: str, blocks: str | None) -> None:
    """Raise unless the block adds its MLP's branch to the skip as the last thing it does."""
    block = find_blocks(base, blocks)[layer][1]
    hosts = [resolve(base, site, [layer], blocks)[0].module for site in ("post_attention", "post_mlp")]
    with inference(base), _Unsteered(base):
        whole, attention, mlp = observe(base, {"input_ids": PROBE}, [block, *hosts])
    total = whole.args[0] + attention.output.reshape(whole.output.shape) + mlp.output.reshape(whole.output.shape)
    if not torch.allclose(total, whole.output, rtol=1e-3, atol=1e-3 * whole.output.abs().max().item()):
        raise ActshiftError(f"{where} comes after a norm of the sum with the skip; it cannot be merged.")


def linear(module: nn.Module, name: str) -> nn.Module:
    """Return a linear map itself, out of a LoRA round it; raise ActshiftError for quantised and other weights."""
    inner = getattr(module, "base_layer", module)
    weight = getattr(inner, "weight", None)
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        raise ActshiftError(f"{name} ({type(inner).__name__}) has no plain weight to merge into; load it unquantised.")
    return inner


class _Unsteered:
    """Switch steering layers off for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = list(steering_layers(model).values())

    def __enter__(self) -> None:
        self.before = [layer._disable_adapters for layer in self.layers]
        for layer in self.layers:
            layer._disable_adapters = True

    def __exit__(self, *_: object) -> None:
        for layer, former in zip(self.layers, self.before, strict=True):
            layer._disable_adapters = former
