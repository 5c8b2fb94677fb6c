"""Gradient initialisation of low-rank adapters: W_down from the gradient of the loss, W_up = 0."""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from actshift.data.pairs import split_pair
from actshift.errors import ActshiftError
from actshift.gradients.backward import Batch, OnBatch, backward, frozen, model_inputs
from actshift.gradients.sketch import SIZE, Sketch
from actshift.gradients.taps import BatchGroup, Mask, Tap, tap_map
from actshift.tuner import SteeringLayer
from actshift.tuner.intervention import resolve_targets
from actshift.tuner.layer import EVERYWHERE, layer_at


def gradient_init(
    model: nn.Module, batches: Iterable[Batch], adapter_name: str = "default", on_batch: OnBatch = None
) -> None:
    """Set W_down of a fresh adapter with `init="gradient"` to the directions along which the loss falls fastest.

    At each site G = Σ g xᵀ `[d, d]` is summed over the steered tokens of `batches`, in float32 (float64 for a float64
    model). x is the activation and g the gradient of the mean loss. With v_1, …, v_r the leading right singular vectors
    of G, W_down `[r, d]` becomes

        W_down = a · [v_1, …, v_r]ᵀ,    with a such that mean((W_down x)²) = mean(‖x‖²) / 3d.

    The code W_down x then has the same mean square as under the default initialisation, rows from U(-1/√d, 1/√d), so
    the same learning rates apply. W_up stays 0, so the outputs do not change. To first order, the first step on W_up is
    the best step of rank r. Training need not become shorter (docs/results/locate.md). The directions take one backward
    pass per batch, the scale one forward pass.

    `batches` are keyword arguments of the model, with labels; `actshift.token_batches` builds them. The model's other
    weights, modes and gradients do not change. `on_batch` is called with the number of finished batches.

    Raises:
        ActshiftError: The adapter does not exist, lacks `init="gradient"`, or is already trained; its rank exceeds 64
            at a site wider than 512; or no gradient is finite and nonzero. The adapter is then unchanged.

    Source: this project, docs/method.md#gradient-initialisation. LoRA-GA (arXiv 2407.05000) does the same for LoRA.

    >>> from actshift import SteeringConfig, attach
    >>> from actshift.analysis.batches import token_batches
    >>> from actshift.demo import load_base
    >>> model, tokenizer = load_base()
    >>> model = attach(model, SteeringConfig(rank=2, init="gradient"))
    >>> gradient_init(model, token_batches(["what is the largest of three and four ?"], tokenizer))
    """
    adapters, batches = _fresh_adapters(model, adapter_name), list(batches)
    layers = [layer for layer, _ in adapters]
    batch_group = BatchGroup(groups=1)
    taps = [Tap(f"{layer.site} of block {layer.layer_index}") for layer in layers]
    masks = [partial(_steered_tokens, layer, adapter_name) for layer in layers]
    handles = [tap_map(tap, layer, batch_group, mask) for tap, layer, mask in zip(taps, layers, masks, strict=True)]
    stats = backward(model, batches, taps, batch_group, handles, on_batch)
    directions = [_directions(tap, shift, stats.shares) for tap, (_, shift) in zip(taps, adapters, strict=True)]
    scales = _code_scales(model, batches, layers, directions, masks)
    with torch.no_grad():
        for (_, shift), rows, scale in zip(adapters, directions, scales, strict=True):
            shift.down.weight.copy_(scale * rows)


def _fresh_adapters(model: nn.Module, adapter_name: str) -> list[tuple[SteeringLayer, Any]]:
    """Return the layers and modules of the adapter that have `init="gradient"`."""
    config: Any = getattr(model, "peft_config", {}).get(adapter_name)
    interventions = getattr(config, "all_interventions", ())
    steered = resolve_targets(model, interventions, config.blocks) if interventions else ()
    fresh = [target for target in steered if getattr(target.intervention.adapter, "init", None) == "gradient"]
    layers = [layer_at(target.host) for target in fresh]
    adapters: list[tuple[SteeringLayer, Any]] = [(layer, layer.lora_steer[adapter_name]) for layer in layers]
    if not adapters:
        missing = f'{type(model).__name__} has no adapter {adapter_name!r} with init="gradient"'
        raise ActshiftError(f'{missing}; attach one first, such as SteeringConfig(rank=8, init="gradient").')
    if any(shift.up.weight.any() for _, shift in adapters):
        raise ActshiftError(f"The adapter {adapter_name!r} is trained already; attach a fresh one.")
    return adapters


def _steered_tokens(layer: SteeringLayer, adapter_name: str, x: Tensor) -> Tensor | None:
    """Return the mask of the tokens of x, the activations at a site, that the adapter steers."""
    positions = layer.positions[adapter_name]
    return layer.mask_for(positions, x) if positions != EVERYWHERE and layer.prompts else None


def _directions(tap: Tap, shift: Any, shares: Tensor) -> Tensor:
    """Return the leading right singular vectors `[r, d]` of the gradient that a tap has summed."""
    rank, width = shift.down.weight.shape
    if tap.matrix is None:
        raise ActshiftError(f"No gradient reached {tap.name}: the loss does not depend on it. Do not steer there.")
    if isinstance(tap.matrix, Sketch) and rank > SIZE:
        limit = f'init="gradient" finds at most {SIZE} directions at a site of width {width}'
        raise ActshiftError(f"Rank {rank} is too high: {limit}; use a lower rank, or another init.")
    return tap.matrix.factors(shares, rank).right.T


def _code_scales(
    model: nn.Module,
    batches: Sequence[Batch],
    layers: Sequence[SteeringLayer],
    directions: Sequence[Tensor],
    masks: Sequence[Mask],
) -> list[float]:
    """Return for each layer the scale a for which the mean square of the code is ‖x‖²/3d, over the steered tokens."""
    energies = [[0.0, 0.0] for _ in layers]  # Σ ‖V x‖² and Σ ‖x‖²
    attention_mask: Any = None

    def add(index: int, _: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]
        for chosen in (masks[index](x), attention_mask):
            # A mask of another size belongs to another tensor, such as the input of the encoder.
            if chosen is not None and chosen.numel() * x.shape[-1] == x.numel():
                x = torch.where(chosen.to(x.device).reshape(*x.shape[:-1], 1) != 0, x, 0)
        x = x.flatten(0, -2).to(directions[index])
        energies[index][0] += (x @ directions[index].T).square().sum().item()
        energies[index][1] += x.square().sum().item()

    with ExitStack() as hooks, frozen(model), torch.no_grad():
        for index, layer in enumerate(layers):
            hooks.enter_context(layer.register_forward_pre_hook(partial(add, index)))
        for text in (text for batch in batches for text in split_pair(batch) if text):
            attention_mask = text.get("attention_mask")
            model(**model_inputs(model, text))
    return [
        math.sqrt(energy * rows.shape[0] / (3 * rows.shape[1] * code_energy)) if code_energy else 1 / math.sqrt(3)
        for (code_energy, energy), rows in zip(energies, directions, strict=True)
    ]
