"""Begin a low-rank adapter where the loss falls fastest: W_down from the gradient, W_up = 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from actshift.data.encode import sides
from actshift.errors import ActshiftError
from actshift.gradients.backward import Batch, backward, frozen, on_device
from actshift.gradients.sketch import SIZE, Sketch
from actshift.gradients.taps import BatchGroup, Mask, Tap, tap_map
from actshift.tuner import SteeringLayer
from actshift.tuner.intervention import targets
from actshift.tuner.layer import EVERYWHERE, layer_at

LayerAdapter = tuple[SteeringLayer, Any]


def gradient_init(
    model: nn.Module,
    batches: Iterable[Batch],
    adapter_name: str = "default",
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Set W_down of a fresh adapter with `init="gradient"` to the directions along which the loss falls fastest.

    Its rows are a · v_1, …, a · v_r, the leading right-singular vectors of G = Σ g xᵀ at its site and positions, over
    all tokens of `batches`; W_up stays 0, so that the model is still as it was. The first gradient step of W_up then
    points along the best rank-r direction there is, to first order. a makes the mean square of the code W_down x what
    the default init would make it, ‖x‖²/3d, so that learning rates keep their meaning. One backward pass a batch
    finds the directions, and one forward pass the scale; batches are those of `actshift.locate`.

    Raises ActshiftError where no adapter of this name has `init="gradient"`, it has been trained already, and
    whatever the batches or the model give cause for; the adapter is then unchanged.
    It is the best first step, and no promise of a shorter run: on the bundled model's task docs/results/locate.md found
    none shorter.
    Source: [ours], METHOD §3; the like for LoRA is LoRA-GA (arXiv 2407.05000).

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.analysis.batches import token_batches
    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> model = attach(model, SteeringConfig(rank=2, init="gradient"))
    >>> gradient_init(model, token_batches(["what is the largest of three and four ?"], tokenizer))
    """
    places, batches = _places(model, adapter_name), list(batches)
    clock = BatchGroup(groups=1)
    taps = [Tap(f"{layer.site} of block {layer.layer_index}") for layer, _ in places]
    masks = [_chosen(layer, adapter_name) for layer, _ in places]
    handles = [tap_map(tap, layer, clock, mask) for tap, (layer, _), mask in zip(taps, places, masks, strict=True)]
    seen = backward(model, batches, taps, clock, handles, on_batch)
    rows = [_directions(tap, shift, seen.shares) for tap, (_, shift) in zip(taps, places, strict=True)]
    codes = [CodeScale(directions) for directions in rows]
    _measure(model, batches, [layer for layer, _ in places], codes, masks)
    with torch.no_grad():
        for (_, shift), code in zip(places, codes, strict=True):
            shift.down.weight.copy_(code.scale * code.directions)


def _places(model: nn.Module, adapter_name: str) -> list[LayerAdapter]:
    config: Any = getattr(model, "peft_config", {}).get(adapter_name)
    interventions = getattr(config, "all_interventions", ())
    places: list[LayerAdapter] = []
    for target in targets(model, interventions, config.blocks) if interventions else ():
        if getattr(target.intervention.adapter, "init", None) == "gradient":
            layer = layer_at(target.host)
            places.append((layer, layer.lora_steer[adapter_name]))
    if not places:
        raise ActshiftError(
            f'{type(model).__name__} has no adapter {adapter_name!r} with init="gradient"; attach one first, such as '
            'SteeringConfig(rank=8, init="gradient").'
        )
    if any(shift.up.weight.any() for _, shift in places):
        raise ActshiftError(
            f"The adapter {adapter_name!r} has been trained already, and a new W_down would change what it does; "
            "attach a fresh one."
        )
    return places


def _chosen(layer: SteeringLayer, adapter_name: str) -> Mask:
    """Return what tells the tokens that an adapter steers, by the activations at its site."""
    positions = layer.positions[adapter_name]

    def mask(x: Tensor) -> Tensor | None:
        return layer.prompts.mask_for(positions, x) if positions != EVERYWHERE and layer.prompts else None

    return mask


def _directions(tap: Tap, shift: Any, shares: Tensor) -> Tensor:
    """Return the leading right-singular vectors `[r, d]` of what the tap holds."""
    rank, width = shift.down.weight.shape
    if tap.matrix is None:
        raise ActshiftError(f"No gradient reached {tap.name}; the loss does not depend on it, so leave it out.")
    if isinstance(tap.matrix, Sketch) and rank > SIZE:
        raise ActshiftError(
            f'init="gradient" finds at most {SIZE} directions at a site of width {width}, and the rank is {rank}; '
            f'use a rank up to {SIZE}, or init="default".'
        )
    return tap.matrix.factors(shares, rank).right.T


class CodeScale:
    """The size of what r directions `[r, d]` read of an activation, beside the activation's own."""

    def __init__(self, directions: Tensor) -> None:
        self.directions = directions
        self.read = self.whole = 0.0

    def add(self, x: Tensor) -> None:
        """Take in tokens `x [tokens, d]`."""
        x = x.to(self.directions)
        self.read += (x @ self.directions.T).square().sum().item()
        self.whole += x.square().sum().item()

    @property
    def scale(self) -> float:
        """The a that makes the mean square of the code's r numbers ‖x‖²/3d, as rows from U(-1/√d, 1/√d) would."""
        rank, width = self.directions.shape
        return math.sqrt(self.whole * rank / (3 * width * self.read)) if self.read else 1 / math.sqrt(3)


def _measure(
    model: nn.Module,
    batches: Sequence[Batch],
    layers: Sequence[SteeringLayer],
    codes: Sequence[CodeScale],
    masks: Sequence[Mask],
) -> None:
    attended: list[Any] = [None]

    def reader(code: CodeScale, mask: Mask) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(_: nn.Module, args: tuple[Any, ...]) -> None:
            x: Tensor = args[0]
            for wanted in (mask(x), attended[0]):  # a mask of another shape is not this tensor's: an encoder's, say
                if wanted is not None and wanted.numel() * x.shape[-1] == x.numel():
                    x = torch.where(wanted.to(x.device).reshape(*x.shape[:-1], 1) != 0, x, 0)
            code.add(x.flatten(0, -2))

        return read

    handles = [
        layer.register_forward_pre_hook(reader(code, mask))
        for layer, code, mask in zip(layers, codes, masks, strict=True)
    ]
    try:
        with frozen(model), torch.no_grad():
            for text in (text for batch in batches for text in sides(batch) if text):
                attended[0] = text.get("attention_mask")
                model(**on_device(model, text))
    finally:
        for handle in handles:
            handle.remove()
