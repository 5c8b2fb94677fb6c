"""What is summed over batches at one block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from actshift.analysis.capture import Batch, Call, hidden_states, split_tokens, unmasked
from actshift.analysis.equivalence.branch import Branch, Weights, branches_of, reach, widened
from actshift.analysis.equivalence.report import LayerEquivalence, Remainder
from actshift.analysis.regression import RIDGES, Moments, best_fit
from actshift.errors import ActshiftError

REACH_TOKENS = 256
"""Least squares are solved for each token, so that a few hundred are taken, from the first rows."""
ADDS_UP = 1e-3


@dataclass(frozen=True)
class Parts:
    """The modules of a block: it, the hosts of its branches, and what takes the MLP's input; None is unknown."""

    layer: int
    block: nn.Module
    attention: nn.Module | None
    mlp: nn.Module | None
    entry: nn.Module | None


@dataclass
class RemainderSums:
    """Squared norms summed over tokens, for each scale."""

    scales: tuple[float, ...]
    shift: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    output: float = 0.0
    count: int = 0

    def add(self, still: Tensor, moved: Callable[[float], Tensor], first_order: Tensor, batch: Batch) -> None:
        """Take in the tokens of a batch: the output as it is, moved by each scale of the cause, and its derivative."""
        if not self.shift:
            self.shift, self.predicted, self.left = ([0.0] * len(self.scales) for _ in range(3))
        self.output += _energy(still, batch)
        self.count += len(unmasked(still, batch))
        for place, scale in enumerate(self.scales):
            shift = moved(scale) - still
            self.shift[place] += _energy(shift, batch)
            self.predicted[place] += scale**2 * _energy(first_order, batch)
            self.left[place] += _energy(shift - scale * first_order, batch)

    def finish(self) -> Remainder | None:
        """Return the root mean squares."""
        if not self.count:
            return None
        shift, predicted, left = (
            tuple((one / self.count) ** 0.5 for one in sums) for sums in (self.shift, self.predicted, self.left)
        )
        largest = shift[max(range(len(self.scales)), key=self.scales.__getitem__)]
        output = (self.output / self.count) ** 0.5
        return Remainder(self.scales, shift, predicted, left, largest / output if output else 0.0)


class LayerSums:
    """Everything about one block, batch by batch."""

    def __init__(self, parts: Parts, update: Weights, ranks: tuple[int, ...], scales: tuple[float, ...]) -> None:
        self.parts, self.update, self.ranks = parts, update, ranks
        self.remainders = {kind: RemainderSums(scales) for kind in ("attention", "mlp", "steering")}
        self.sites = {site: (Moments(), Moments()) for site in ("post_mlp", "post_block")}
        self.branches: dict[str, Branch] | None = None
        self.skip = self.copied = self.wanted = self.moved = self.taken = 0.0
        self.skip_tokens = self.reach_tokens = 0

    def add(self, call: Call, batch: Batch, rows: int) -> None:
        """Take in a batch, of which `rows` rows came before."""
        dtype = torch.float32 if call.output.device.type == "mps" else torch.float64
        if not torch.isfinite(call.output).all():
            raise ActshiftError(
                f"block {self.parts.layer} returns values that are not finite: they overflow the model's dtype; load "
                "it in float32 or bfloat16."
            )
        call = Call(widened(call.args, dtype), widened(call.kwargs, dtype), call.output)
        block = self.parts.block
        weights = widened({**dict(block.named_parameters()), **dict(block.named_buffers())}, dtype)
        if self.branches is None:
            self.branches = branches_of(block, self.parts.attention, self.parts.mlp, call, weights)
        update = widened(dict(self.update), dtype)
        outputs = {}
        for kind, branch in self.branches.items():
            still = outputs[kind] = branch.output(call, weights)
            derivative = branch.first_order(call, weights, update)
            self.remainders[kind].add(
                still, lambda scale, one=branch: one.moved(call, weights, update, scale), derivative, batch
            )
            if kind == "mlp" and self.reach_tokens < REACH_TOKENS and derivative.any():
                self._reach(branch, call, weights, derivative, batch)
        self._sites(call, weights, update, outputs, batch, rows)

    def _reach(self, branch: Branch, call: Call, weights: Weights, wanted: Tensor, batch: Batch) -> None:
        """Take in how much of the MLP's first-order shift steering its input could copy, and eq. 2's remainder."""
        entry = self.parts.entry
        if entry is None:
            return
        taken: list[Tensor] = []
        still = branch.output(call, weights, (entry, lambda x: taken.append(x) or x))

        def mlp(x: Tensor) -> Tensor:
            return branch.output(call, weights, (entry, lambda _: x))

        chosen = self._not_yet_reached(batch, taken[0].shape[:-1])
        found = reach(mlp, taken[0], wanted.reshape(still.shape), chosen.to(wanted.device))
        batch = {"attention_mask": chosen}
        self.reach_tokens += int(chosen.sum())
        self.wanted += _energy(wanted, batch)
        self.copied += _energy(wanted, batch) - _energy(wanted - found.copied, batch)
        self.moved += _energy(found.moved, batch)
        self.taken += _energy(taken[0], batch)
        # Of a shift larger than the activation itself nothing of first order holds: it is cut to that size here.
        sizes = [one.norm(dim=-1, keepdim=True) for one in (found.moved, taken[0])]
        cut = (sizes[1] / sizes[0].clamp(min=torch.finfo(sizes[0].dtype).tiny)).clamp(max=1)
        self.remainders["steering"].add(
            still, lambda scale: mlp(taken[0] + scale * cut * found.moved), cut * found.copied, batch
        )

    def _not_yet_reached(self, batch: Batch, shape: torch.Size) -> Tensor:
        """Choose the first tokens of a batch that are still wanted, as a mask of this shape."""
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool().flatten()
        return (mask & (mask.cumsum(0) <= REACH_TOKENS - self.reach_tokens)).reshape(shape)

    def _sites(
        self, call: Call, weights: Weights, update: Weights, outputs: dict[str, Tensor], batch: Batch, rows: int
    ) -> None:
        """Take in the block's own shift, beside the activations at the two sites that could copy it."""
        block = self.parts.block
        updated = {**weights, **{name: weights[name] + delta for name, delta in update.items()}}
        before, after = (
            hidden_states(block, functional_call(block, dict(w), call.args, call.kwargs)) for w in (weights, updated)
        )
        seen, held_out = split_tokens(batch, rows)
        activations = {"post_block": before, **({"post_mlp": outputs["mlp"]} if "mlp" in outputs else {})}
        for site, x in activations.items():
            for moments, mask in zip(self.sites[site], (seen, held_out), strict=True):
                moments.add(unmasked(x.reshape(before.shape), mask), unmasked(after - before, mask))
        if outputs.keys() == {"attention", "mlp"} and call.args:
            skip = before - outputs["mlp"].reshape(before.shape)
            entered = call.args[0] + outputs["attention"].reshape(before.shape)
            if (skip - entered).norm() <= ADDS_UP * before.norm():  # where a norm follows the sum, there is no share
                norms = [unmasked(one, batch).norm(dim=-1) for one in (skip, outputs["mlp"])]
                self.skip += (norms[0] / (norms[0] + norms[1])).sum().item()
                self.skip_tokens += len(norms[0])

    def finish(self) -> LayerEquivalence:
        """Return what was found."""
        reached = self.reach_tokens and self.wanted
        return LayerEquivalence(
            layer=self.parts.layer,
            skip_share=self.skip / self.skip_tokens if self.skip_tokens else None,
            **{kind: sums.finish() for kind, sums in self.remainders.items()},
            pre_mlp=self.copied / self.wanted if reached else None,
            effort=(self.moved / self.taken) ** 0.5 if reached else None,
            post_mlp=self._shares("post_mlp") if self.sites["post_mlp"][0].count else None,
            post_block=self._shares("post_block") or {},
        )

    def _shares(self, site: str) -> dict[int, float]:
        seen, held_out = self.sites[site]
        if not held_out.energy:
            return {rank: 0.0 for rank in (0, *self.ranks)}
        fits = best_fit(seen, held_out, (0, *self.ranks), (0.0, *RIDGES))
        return {rank: 1 - fit.error / held_out.energy for rank, fit in fits.items()}


def _energy(hidden: Tensor, batch: Batch) -> float:
    return unmasked(hidden, batch).square().sum().item()
