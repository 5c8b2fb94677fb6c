"""Run the base model, and at every block what the update would change there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actshift.analysis.capture import Batch, check_tokens, inference, observe, unmasked
from actshift.analysis.equivalence.layer import LayerSums, Parts
from actshift.analysis.equivalence.report import EquivalenceReport
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, mlp_entry, resolve
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices


@dataclass(frozen=True)
class Update:
    """The change of every weight that changed, `deltas`, in float32 or wider, by its name in the base model."""

    deltas: Mapping[str, Tensor]

    def below(self, block: str) -> dict[str, Tensor]:
        """Return the changes inside a block, by names relative to it."""
        return {name.removeprefix(f"{block}."): d for name, d in self.deltas.items() if name.startswith(f"{block}.")}

    def outside(self, blocks: list[str]) -> tuple[str, ...]:
        """Return the names of changed weights that no block holds: embeddings, a last norm, a head."""
        return tuple(name for name in self.deltas if not any(name.startswith(f"{block}.") for block in blocks))


def update_between(base: nn.Module, updated: nn.Module | Mapping[str, Tensor]) -> Update:
    """Return the update that takes `base` to `updated`, a model or its state dict.

    Raises ActshiftError where they are not two versions of one model, nothing changed, or a value is not finite.

    >>> from torch import nn
    >>> update_between(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}).deltas.keys()
    dict_keys(['weight', 'bias'])
    """
    ours = dict(unwrap(base).named_parameters())
    theirs = dict(unwrap(updated).named_parameters()) if isinstance(updated, nn.Module) else dict(updated)
    check_twins(ours, theirs)
    deltas = {}
    for name, weight in ours.items():
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = theirs[name].detach().to(weight.device, wide) - weight.detach().to(wide)
        if not torch.isfinite(delta).all():
            raise ActshiftError(
                f"{name} is not finite in one of the two models: it overflowed its dtype, or training diverged; "
                "save the model in float32 or bfloat16."
            )
        if delta.any():
            deltas[name] = delta
    if not deltas:
        raise ActshiftError("the two models have the same weights, so there is no update to look at; check the paths.")
    return Update(deltas)


def check_twins(base: Mapping[str, Tensor], updated: Mapping[str, Tensor]) -> None:
    """Raise ActshiftError unless both hold the same weights, in the same shapes."""
    for name, weight in base.items():
        if name not in updated:
            raise ActshiftError(
                f"the updated model has no {name}, so it is no version of the base; give two checkpoints of one "
                "architecture."
            )
        if updated[name].shape != weight.shape:
            raise ActshiftError(
                f"{name} is {list(weight.shape)} in the base and {list(updated[name].shape)} in the updated model; "
                "give two checkpoints of the same size."
            )
    if more := sorted(name for name in updated if name not in base and name.endswith((".weight", ".bias"))):
        tied = [name for name in more if name.partition(".")[0] in ("lm_head", "score")]
        if len(tied) < len(more):
            raise ActshiftError(f"the updated model has {more[0]}, which the base lacks; give two of one architecture.")


SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
RANKS = (1, 4, 8, 16, 32)
MEMORY = 2 * 2**30
SQUARES = 12
"""The d × d sums of a layer: three for each of two sites, of the rows to fit and of those held out."""


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
    """Return what a weight update amounts to as activation shifts, layer by layer, on the base model's own stream.

    For each branch: the shift that the update makes at the branch's input in the base model, the first-order
    prediction from ΔW (eq. 1), and what it leaves as the update is scaled. For steering: what lies in reach of a
    shift before the MLP (eq. 2), and what an affine map of a rank could copy after the MLP and after the block.

    `updated` is a model or a state dict of the same architecture; a LoRA is merged first. Branches are computed in
    float64 (float32 on Apple's GPUs), a block at a time, since their differences are what counts. A third of the rows
    is held out to score the maps. `on_batch` hears the number of batches done; both models are left as they were.

    Raises ActshiftError where the two are not versions of one model, nothing changed, there are too few tokens, or
    values are not finite.
    Source: arXiv 2603.00425, §3, eq. 1 and 2; the shares at a rank are [ours].
    """
    update = update_between(base, updated)
    base = unwrap(base)
    found = find_blocks(base, blocks)
    chosen = block_indices(layers, len(found), type(base).__name__)
    if list(chosen) != sorted(chosen):
        raise ActshiftError(f"layers must be in the order of the blocks, got {list(layers or ())}.")
    check_tokens(batches, 4, "the equivalence")
    parts, left_out = _parts(base, chosen, found, blocks)
    sums = [LayerSums(part, update.below(found[part.layer][0]), tuple(ranks), tuple(scales)) for part in parts]
    tokens = 0
    with inference(base), plain_experts(base):
        for group in _groups(sums, resolve(base, layers=[0], blocks=blocks)[0].width):
            tokens = _pass(base, batches, group, on_batch)
    config: Any = base.config
    return EquivalenceReport(
        model=getattr(config, "name_or_path", "") or type(base).__name__,
        tokens=tokens,
        ranks=(0, *ranks),
        layers=tuple(one.finish() for one in sums),
        outside=update.outside([name for name, _ in found]),
        left_out=left_out,
    )


@contextmanager
def plain_experts(model: nn.Module) -> Iterator[None]:
    """Let experts multiply one by one for a while: the grouped product knows neither float64 nor derivatives."""
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in found if hasattr(config, "_experts_implementation")}
    before = {key: config._experts_implementation for key, config in configs.items()}
    for config in configs.values():
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]


def _groups(sums: Sequence[LayerSums], width: int) -> Iterator[Sequence[LayerSums]]:
    """Cut the layers into those whose sums fit into memory at once; each group takes a pass over the batches."""
    size = max(1, MEMORY // (SQUARES * 8 * width**2))
    for start in range(0, len(sums), size):
        yield sums[start : start + size]


def _pass(
    base: nn.Module, batches: Sequence[Batch], sums: Sequence[LayerSums], on_batch: Callable[[int], None] | None
) -> int:
    """Run the base model over all batches; return the tokens seen."""
    tokens = rows = 0
    for number, batch in enumerate(batches, start=1):
        calls = observe(base, batch, [one.parts.block for one in sums], stop=True)
        for one, call in zip(sums, calls, strict=True):
            one.add(call, batch, rows)
        tokens += len(unmasked(calls[0].output, batch))
        rows += len(batch["input_ids"])
        if on_batch is not None:
            on_batch(number)
    return tokens


def _parts(
    model: nn.Module, chosen: Sequence[int], found: Sequence[tuple[str, nn.Module]], blocks: str | None
) -> tuple[list[Parts], tuple[str, ...]]:
    """Return the modules of each block that are looked at; branches that the table does not know are left out."""
    hosts: dict[str, dict[int, Any]] = {}
    left_out = []
    for site in ("post_attention", "post_mlp"):
        try:
            hosts[site] = {host.layer: host.module for host in resolve(model, site, list(chosen), blocks)}
        except ActshiftError as error:
            hosts[site] = {}
            left_out.append(str(error))
    parts = []
    for layer in chosen:
        try:
            entry = mlp_entry(model, layer, blocks)
        except ActshiftError:
            entry = None
        attention, mlp = (hosts[site].get(layer) for site in ("post_attention", "post_mlp"))
        parts.append(Parts(layer, found[layer][1], attention, mlp, entry))
    return parts, tuple(left_out)
