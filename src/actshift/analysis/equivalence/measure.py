"""Compare a weight update with activation shifts, block by block, on the base model's own activations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actshift.analysis.capture import Batch, check_tokens, inference, observe, unmasked
from actshift.analysis.equivalence.layer import BlockModules, LayerSums
from actshift.analysis.equivalence.report import EquivalenceReport
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, mlp_entry, resolve
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices

SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
RANKS = (1, 4, 8, 16, 32)
MEMORY = 2 * 2**30
"""Bytes for the sums of the layers that share one pass over the batches."""
SQUARES = 12
"""Number of d × d sums of a layer: three for each of two sites, for the fitted and for the held-out rows."""


@dataclass(frozen=True)
class Update:
    """The change of every changed weight in float32 or wider, by its name in the base model."""

    deltas: Mapping[str, Tensor]

    def below(self, block: str) -> dict[str, Tensor]:
        """Return the changes inside a block, by names relative to it."""
        prefix = f"{block}."
        return {name.removeprefix(prefix): delta for name, delta in self.deltas.items() if name.startswith(prefix)}

    def outside(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """Return the names of changed weights outside these blocks, such as embeddings, a last norm or a head."""
        return tuple(name for name in self.deltas if not any(name.startswith(f"{block}.") for block in blocks))


def update_between(base: nn.Module, updated: nn.Module | Mapping[str, Tensor]) -> Update:
    """Return the update that turns `base` into `updated`, a model or its state dict.

    Raises:
        ActshiftError: The two are not versions of one model, no weight changed, or a value is not finite.

    >>> from torch import nn
    >>> update_between(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}).deltas.keys()
    dict_keys(['weight', 'bias'])
    """
    base_weights = dict(unwrap(base).named_parameters())
    new_weights = dict(unwrap(updated).named_parameters()) if isinstance(updated, nn.Module) else dict(updated)
    check_twins(base_weights, new_weights)
    deltas: dict[str, Tensor] = {}
    for name, weight in base_weights.items():
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = new_weights[name].detach().to(weight.device, wide) - weight.detach().to(wide)
        if not torch.isfinite(delta).all():
            raise ActshiftError(
                f"{name} is not finite in one of the two models: it overflowed its dtype, or training diverged. "
                "Save the model in float32 or bfloat16."
            )
        if delta.any():
            deltas[name] = delta
    if not deltas:
        raise ActshiftError("The two models have the same weights, so there is no update to analyse. Check the paths.")
    return Update(deltas)


def check_twins(base: Mapping[str, Tensor], updated: Mapping[str, Tensor]) -> None:
    """Check that two models have the same weights in the same shapes.

    Raises:
        ActshiftError: A weight is missing in one of them, or has another shape.
    """
    for name, weight in base.items():
        if name not in updated:
            raise ActshiftError(
                f"The updated model has no {name}, so it is not a version of the base. Use two checkpoints of one "
                "architecture."
            )
        if updated[name].shape != weight.shape:
            raise ActshiftError(
                f"{name} is {list(weight.shape)} in the base and {list(updated[name].shape)} in the updated model. "
                "Use two checkpoints of the same size."
            )
    for name in sorted(set(updated) - set(base)):
        tied_head = name.partition(".")[0] in ("lm_head", "score")
        if name.endswith((".weight", ".bias")) and not tied_head:
            raise ActshiftError(
                f"The updated model has {name}, which the base lacks. Use two checkpoints of one architecture."
            )


def equivalence(
    base: nn.Module,
    updated: nn.Module | Mapping[str, Tensor],
    batches: Sequence[Batch],
    ranks: Sequence[int] = RANKS,
    scales: Sequence[float] = SCALES,
    layers: Sequence[int] | None = None,
    blocks: str | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> EquivalenceReport:
    """Express a weight update as activation shifts, block by block, on the base model's own activations.

    For each branch, the report has the shift that the update causes at the branch's input in the base model, the
    first-order prediction from ΔW (eq. 1), and the remainder for several scales of the update. It also has the shares
    of the shift that steering could copy: any shift before the MLP (eq. 2), and an affine map of each rank after the
    MLP and after the block. A third of the rows is held out to score these maps. Branches are computed in float64
    (float32 on Apple GPUs), because their differences are small. Both models are restored afterwards.

    Args:
        base: The base model.
        updated: A model or state dict of the same architecture. A LoRA must be merged first.
        batches: Keyword arguments of the model.
        ranks: Ranks of the affine maps.
        scales: Scales of the update.
        layers: Indices of blocks in ascending order; all by default.
        blocks: Name of the list of blocks, if it cannot be found automatically.
        on_batch: Called with the number of finished batches.

    Raises:
        ActshiftError: The two are not versions of one model, no weight changed, there are too few tokens, or values
            are not finite.

    Source: arXiv 2603.00425, §3, eq. 1 and 2; the shares by rank are this project's,
    docs/method.md#first-order-equivalence.
    """
    update = update_between(base, updated)
    base = unwrap(base)
    all_blocks = find_blocks(base, blocks)
    chosen = block_indices(layers, len(all_blocks), type(base).__name__)
    if list(chosen) != sorted(chosen):
        raise ActshiftError(f"layers must be in ascending order, got {list(layers or ())}.")
    check_tokens(batches, 4, "the equivalence")
    modules, left_out = _block_modules(base, chosen, all_blocks, blocks)
    sums = [
        LayerSums(block, update.below(all_blocks[block.layer][0]), tuple(ranks), tuple(scales)) for block in modules
    ]
    group_size = max(1, MEMORY // (SQUARES * 8 * resolve(base, layers=[0], blocks=blocks)[0].width ** 2))
    tokens = 0
    with inference(base), eager_experts(base):
        for start in range(0, len(sums), group_size):
            tokens = _pass(base, batches, sums[start : start + group_size], on_batch)
    config: Any = base.config
    return EquivalenceReport(
        model=getattr(config, "name_or_path", "") or type(base).__name__,
        tokens=tokens,
        ranks=(0, *ranks),
        layers=tuple(layer.finish() for layer in sums),
        outside=update.outside([name for name, _ in all_blocks]),
        left_out=left_out,
    )


@contextmanager
def eager_experts(model: nn.Module) -> Generator[None, None, None]:
    """Run experts one by one inside this context: the grouped product supports neither float64 nor derivatives."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    before = {
        id(config): (config, config._experts_implementation)
        for config in configs
        if hasattr(config, "_experts_implementation")
    }
    for config, _ in before.values():
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        for config, implementation in before.values():
            config._experts_implementation = implementation


def _pass(
    base: nn.Module, batches: Sequence[Batch], sums: Sequence[LayerSums], on_batch: Callable[[int], None] | None
) -> int:
    """Run the base model on all batches, and return the number of tokens."""
    tokens = rows = 0
    for number, batch in enumerate(batches, start=1):
        calls = observe(base, batch, [layer.modules.block for layer in sums], stop=True)
        for layer, call in zip(sums, calls, strict=True):
            layer.add(call, batch, rows)
        tokens += len(unmasked(calls[0].output, batch))
        rows += len(batch["input_ids"])
        if on_batch is not None:
            on_batch(number)
    return tokens


def _block_modules(
    model: nn.Module, chosen: Sequence[int], all_blocks: Sequence[tuple[str, nn.Module]], blocks: str | None
) -> tuple[list[BlockModules], tuple[str, ...]]:
    """Return the modules of the chosen blocks, and the reasons why branches are unknown."""
    hosts: dict[str, dict[int, nn.Module]] = {"post_attention": {}, "post_mlp": {}}
    left_out: list[str] = []
    for site, modules in hosts.items():
        try:
            modules.update({host.layer: host.module for host in resolve(model, site, list(chosen), blocks)})
        except ActshiftError as error:
            left_out.append(str(error))

    def entry(layer: int) -> nn.Module | None:
        try:
            return mlp_entry(model, layer, blocks)
        except ActshiftError:
            return None

    return [
        BlockModules(
            layer, all_blocks[layer][1], hosts["post_attention"].get(layer), hosts["post_mlp"].get(layer), entry(layer)
        )
        for layer in chosen
    ], tuple(left_out)
