"""Compare a weight update with activation shifts, block by block, on the base model's own activations."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actshift.analysis.capture import Batches, capture_calls, inference, model_name, require_tokens, unmasked
from actshift.analysis.equivalence.layer import LayerSums
from actshift.analysis.equivalence.report import EquivalenceReport
from actshift.errors import ActshiftError
from actshift.gradients.backward import OnBatch, restored
from actshift.sites import find_blocks, mlp_entry, resolve
from actshift.sites.blocks import unwrap
from actshift.sites.resolve import block_indices

SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
RANKS = (1, 4, 8, 16, 32)
MEMORY = 2 * 2**30  # bytes for the sums of the layers that share one pass over the batches
SQUARES = 12  # number of d × d sums of a layer: three for each of two sites, fitted and held out


@dataclass(frozen=True)
class Update:
    """The change of every changed weight in float32 or wider, by its name in the base model."""

    deltas: Mapping[str, Tensor]

    def below(self, block: str) -> dict[str, Tensor]:
        """Return the changes inside a block, by names relative to it."""
        prefix = f"{block}."
        return {name.removeprefix(prefix): delta for name, delta in self.deltas.items() if name.startswith(prefix)}


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
    check_same_shapes(base_weights, new_weights)
    deltas: dict[str, Tensor] = {}
    for name, weight in base_weights.items():
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = new_weights[name].detach().to(weight.device, wide) - weight.detach().to(wide)
        if not torch.isfinite(delta).all():
            raise ActshiftError(f"{name} is not finite in one of the models. Save it in float32 or bfloat16.")
        if delta.any():
            deltas[name] = delta
    if not deltas:
        raise ActshiftError("The two models have the same weights, so there is no update to analyse. Check the paths.")
    return Update(deltas)


def check_same_shapes(base: Mapping[str, Tensor], updated: Mapping[str, Tensor]) -> None:
    """Raise ActshiftError unless two models have the same weights in the same shapes."""
    for name, weight in base.items():
        if name not in updated:
            raise ActshiftError(f"The updated model has no {name}. Use two checkpoints of one architecture.")
        if (shape := updated[name].shape) != weight.shape:
            shapes = f"{list(weight.shape)} in the base and {list(shape)} in the updated model"
            raise ActshiftError(f"{name} is {shapes}. Use two checkpoints of the same size.")
    for name in sorted(updated.keys() - base.keys()):
        if name.endswith((".weight", ".bias")) and not name.startswith(("lm_head.", "score.")):  # a head may be tied
            raise ActshiftError(f"The base has no {name}. Use two checkpoints of one architecture.")


def equivalence(
    base: nn.Module,
    updated: nn.Module | Mapping[str, Tensor],
    batches: Batches,
    ranks: Sequence[int] = RANKS,
    scales: Sequence[float] = SCALES,
    layers: Sequence[int] | None = None,
    blocks: str | None = None,
    on_batch: OnBatch = None,
) -> EquivalenceReport:
    """Express a weight update as activation shifts, block by block, on the base model's own activations.

    For each branch, the report has the shift that the update causes at the branch's input in the base model, the
    first-order prediction from ΔW (eq. 1), and the remainder for several scales of the update. It also has the shares
    of the shift that steering could copy: any shift before the MLP (eq. 2), and an affine map of each rank after the
    MLP and after the block. A third of the rows is held out to score these maps. Branches are computed in float64
    (float32 on Apple GPUs), because their differences are small. Both models are restored afterwards.

    Args:
        updated: A model or state dict of the same architecture. A LoRA must be merged first.
        layers: Indices of blocks in ascending order; all by default.
        blocks: Name of the list of blocks, if it cannot be found automatically.

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
    require_tokens(batches, 4, "the equivalence")
    left_out: list[str] = []
    attention, mlp = (_hosts(base, site, chosen, blocks, left_out) for site in ("post_attention", "post_mlp"))
    sums: list[LayerSums] = []
    for layer in chosen:
        name, block = all_blocks[layer]
        entry = None
        with suppress(ActshiftError):
            entry = mlp_entry(base, layer, blocks)
        hosts = attention.get(layer), mlp.get(layer), entry
        sums.append(LayerSums(layer, block, *hosts, update.below(name), tuple(ranks), tuple(scales)))
    group_size = max(1, MEMORY // (SQUARES * 8 * resolve(base, layers=[0], blocks=blocks)[0].width ** 2))
    tokens = 0
    with inference(base), eager_experts(base):
        for start in range(0, len(sums), group_size):
            tokens = _pass(base, batches, sums[start : start + group_size], on_batch)
    inside = tuple(f"{name}." for name, _ in all_blocks)
    return EquivalenceReport(
        model=model_name(base),
        tokens=tokens,
        ranks=(0, *ranks),
        layers=tuple(layer.finish() for layer in sums),
        outside=tuple(name for name in update.deltas if not name.startswith(inside)),
        left_out=tuple(left_out),
    )


@contextmanager
def eager_experts(model: nn.Module) -> Generator[None]:
    """Run experts one by one inside this context: the grouped product supports neither float64 nor derivatives."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = [config for config in configs if hasattr(config, "_experts_implementation")]
    with restored(configs, "_experts_implementation"):
        for config in configs:
            config._experts_implementation = "eager"
        yield


def _pass(base: nn.Module, batches: Batches, sums: Sequence[LayerSums], on_batch: OnBatch) -> int:
    """Run the base model on all batches, and return the number of tokens."""
    tokens = rows = 0
    for number, batch in enumerate(batches, start=1):
        calls = capture_calls(base, batch, [layer.block for layer in sums], stop=True)
        for layer, call in zip(sums, calls, strict=True):
            layer.add(call, batch, rows)
        tokens += len(unmasked(calls[0].output, batch))
        rows += len(batch["input_ids"])
        if on_batch:
            on_batch(number)
    return tokens


def _hosts(
    model: nn.Module, site: str, layers: Sequence[int], blocks: str | None, left_out: list[str]
) -> dict[int, nn.Module]:
    """Return the modules of a site by block, or add the reason why they are unknown to `left_out`."""
    try:
        return {host.layer: host.module for host in resolve(model, site, list(layers), blocks)}
    except ActshiftError as error:
        left_out.append(str(error))
        return {}
