"""Find the linear map that can absorb the shift of each steering layer, or the reason why none can."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actshift.analysis.capture import Call, capture_calls, inference
from actshift.errors import ActshiftError
from actshift.gradients.backward import restored
from actshift.sites import Host, OutputMap, Positions, find_blocks, mlp_outputs, resolve
from actshift.sites.blocks import unwrap
from actshift.tuner import SteeringLayer, steering_layers

TOLERANCE = 1e-9
PROBE = torch.arange(3, 11)[None]  # arbitrary token ids, to compare the outputs of modules


class AffineShift(NamedTuple):
    """The shift Δ(x) = M x + c, with `matrix` M `[d, d]` and `constant` c `[d]`, in float64."""

    matrix: Tensor
    constant: Tensor


class Fold(NamedTuple):
    """A linear map `module` called `name` that absorbs a shift of its output, or of its input (`at_input`)."""

    layer: int
    site: str
    name: str
    module: nn.Module
    at_input: bool
    shift: AffineShift


def plan_folds(model: Any) -> list[Fold]:
    """Return for every active steering layer the linear map before it, which can absorb its shift exactly.

    With the map y = W m + b, the shift Δ(y) = M y + c gives (I + M) W m + (I + M) b + c. At the input of a map, the new
    weight is W (I + M) and the new bias b + W c. A constant after the block joins the bias of the MLP's last map.

    Raises:
        ActshiftError: A shift is not affine, acts on some tokens only, depends on h after the block, or does not
            directly follow a linear map.

    Source: arXiv 2603.00425, §3, for LoReFT after the MLP; docs/method.md#folding.
    """
    base = unwrap(model)
    folds = [_fold(base, layer) for layer in steering_layers(model).values()]
    return [fold for fold in folds if fold.shift.matrix.any() or fold.shift.constant.any()]


def _fold(base: nn.Module, layer: SteeringLayer) -> Fold:
    where = f"{layer.site} of block {layer.layer_index}"
    active = [name for name in layer.active_adapters if layer.strengths.get(name)]
    if any(layer.positions[name] != Positions.all() for name in active):
        raise _unmergeable(where, "it steers at some tokens only, but a weight acts on all")
    shift = affine_of(layer)
    if shift is None:
        raise _unmergeable(where, "it is not linear; use a linear one, such as LowRank with activation=None")
    if layer.site == "post_block" and shift.matrix.any():
        most = "it maps the residual stream, most of which the skip carries past every weight of the block"
        raise _unmergeable(where, f"{most}; use a vector, or steer post_mlp")
    configs: Any = getattr(base, "peft_config", {})
    blocks = next((config.blocks for config in configs.values() if getattr(config, "blocks", None)), None)
    site = "post_mlp" if layer.site == "post_block" else layer.site
    [host] = resolve(base, site, [layer.layer_index], blocks)
    name, module = (host.name, host.module) if layer.at_input else _last_map(base, host, where, blocks)
    if layer.site == "post_block":
        _check_sum(base, layer.layer_index, where, blocks)
    plain = getattr(module, "base_layer", module)  # inside a LoRA layer
    weight = getattr(plain, "weight", None)
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        raise ActshiftError(f"{name} ({type(plain).__name__}) has no plain weight to merge into; load it unquantised.")
    return Fold(layer.layer_index, layer.site, name, plain, layer.at_input, shift)


def _unmergeable(where: str, reason: str) -> ActshiftError:
    return ActshiftError(f"The adapter at {where} cannot be merged: {reason}.")


def affine_of(layer: SteeringLayer) -> AffineShift | None:
    """Return the total shift of a layer's active adapters at their strengths, or None if it is not affine.

    c = Δ(0) and M = Δ(1) - c on the unit vectors. The result is then checked at random x.
    """
    matrix = torch.zeros(layer.width, layer.width, dtype=torch.float64)
    constant = torch.zeros(layer.width, dtype=torch.float64)
    x = 3 * torch.randn(16, layer.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(x)
    for name in () if layer.disable_adapters else layer.active_adapters:
        if strength := layer.strengths.get(name, 0.0):
            shift: nn.Module = deepcopy(layer.lora_steer[name]).double().cpu().eval()
            with torch.no_grad():
                at_zero = shift(torch.zeros(1, layer.width, dtype=torch.float64)).reshape(-1)
                columns = shift(torch.eye(layer.width, dtype=torch.float64)).expand(layer.width, -1) - at_zero
                expected += strength * shift(x)
            constant += strength * at_zero
            matrix += strength * columns.T
    error = expected - (x @ matrix.T + constant)
    return AffineShift(matrix, constant) if error.norm() <= TOLERANCE * expected.norm() else None


def _last_map(base: nn.Module, host: Host, where: str, blocks: str | None) -> tuple[str, nn.Module]:
    """Return the linear map whose output is the host's output, checked in one forward pass."""
    if host.site == "post_mlp":
        maps = mlp_outputs(base, [host.layer], blocks)
    else:
        [heads] = resolve(base, "attention_heads", [host.layer], blocks)
        maps = [OutputMap(heads.layer, heads.name, heads.module, None, host.width)]
    if len(maps) > 1 or maps[0].parameter is not None:
        raise _unmergeable(where, "it shifts the outputs of experts, which are weighted token by token")
    name, module = maps[0].name, maps[0].module
    if module is not host.module:
        at_host, at_map = _probe(base, [host.module, module])
        if not torch.equal(at_host.output.flatten(), at_map.output.flatten()):
            raise _unmergeable(where, f"it comes after a norm or a scale that follows {name}")
    return name, module


def _check_sum(base: nn.Module, layer: int, where: str, blocks: str | None) -> None:
    """Raise ActshiftError unless the block ends with the sum of its MLP's branch and the skip."""
    block = find_blocks(base, blocks)[layer][1]
    hosts = [resolve(base, site, [layer], blocks)[0].module for site in ("post_attention", "post_mlp")]
    whole, attention, mlp = _probe(base, [block, *hosts])
    total = whole.args[0] + attention.output.reshape(whole.output.shape) + mlp.output.reshape(whole.output.shape)
    if not torch.allclose(total, whole.output, rtol=1e-3, atol=1e-3 * whole.output.abs().max().item()):
        raise _unmergeable(where, "it comes after a norm of the sum with the skip")


def _probe(base: nn.Module, modules: Sequence[nn.Module]) -> list[Call]:
    """Run a few tokens without steering. PEFT's public switch would also reset which adapters are trainable."""
    layers: list[Any] = list(steering_layers(base).values())
    with inference(base), restored(layers, "_disable_adapters"):
        for layer in layers:
            layer._disable_adapters = True
        return capture_calls(base, {"input_ids": PROBE}, modules)
