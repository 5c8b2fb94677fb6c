"""Sums over batches for the equivalence of one block."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from actshift.analysis.capture import Batch, Call, hidden_states, split_tokens, token_mask, unmasked
from actshift.analysis.equivalence.branch import Branch, Weights, best_input_shift, branches_of, cast_floating
from actshift.analysis.equivalence.report import LayerEquivalence, Remainder
from actshift.analysis.regression import RIDGES, Moments, best_fit
from actshift.errors import ActshiftError

REACH_TOKENS = 256  # number of tokens for `pre_mlp`, from the first rows: least squares for each token are slow
ADDS_UP = 1e-3  # relative error up to which the skip, the attention and the MLP add up to the block's output


class RemainderSums:
    """Squared norms of a shift, its prediction and its remainder, summed over tokens, for each scale."""

    def __init__(self, scales: tuple[float, ...]) -> None:
        self.scales = scales
        self.shift, self.predicted, self.left = ([0.0] * len(scales) for _ in range(3))
        self.output, self.count = 0.0, 0

    def add(self, output: Tensor, shifted: Callable[[float], Tensor], derivative: Tensor, batch: Batch) -> None:
        """Add the tokens of a batch: their unchanged output `[..., d]`, the output for a scale, and its derivative."""
        self.output += _energy(output, batch)
        self.count += len(unmasked(output, batch))
        for index, scale in enumerate(self.scales):
            shift = shifted(scale) - output
            self.shift[index] += _energy(shift, batch)
            self.predicted[index] += scale**2 * _energy(derivative, batch)
            self.left[index] += _energy(shift - scale * derivative, batch)

    def finish(self) -> Remainder | None:
        """Return the root mean squares, or None if no token was added."""
        if not self.count:
            return None
        shift, predicted, left = (
            tuple((total / self.count) ** 0.5 for total in sums) for sums in (self.shift, self.predicted, self.left)
        )
        largest = shift[self.scales.index(max(self.scales))]
        output = (self.output / self.count) ** 0.5
        return Remainder(self.scales, shift, predicted, left, largest / output if output else 0.0)


@dataclass
class LayerSums:
    """All sums of one block, with the hosts of its branches and the module that takes the MLP's input, if known."""

    layer: int
    block: nn.Module
    attention: nn.Module | None
    mlp: nn.Module | None
    mlp_entry: nn.Module | None
    update: Weights
    ranks: tuple[int, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        self.remainders = {kind: RemainderSums(self.scales) for kind in ("attention", "mlp", "steering")}
        self.sites = {site: (Moments(), Moments()) for site in ("post_mlp", "post_block")}
        self.branches: dict[str, Branch] | None = None
        self.skip = self.copied = self.target = self.shift = self.input = 0.0
        self.skip_tokens = self.reach_tokens = 0

    def add(self, call: Call, batch: Batch, rows: int) -> None:
        """Add a batch that follows `rows` earlier rows. Raises ActshiftError if the block's output is not finite."""
        if not torch.isfinite(call.output).all():
            raise ActshiftError(f"Block {self.layer} returns values that are not finite. Use float32 or bfloat16.")
        dtype = torch.float32 if call.output.device.type == "mps" else torch.float64
        call = Call(cast_floating(call.args, dtype), cast_floating(call.kwargs, dtype), call.output)
        weights = cast_floating(dict(self.block.named_parameters()) | dict(self.block.named_buffers()), dtype)
        update = cast_floating(dict(self.update), dtype)
        if self.branches is None:
            self.branches = branches_of(self.block, self.attention, self.mlp, call, weights)
        outputs: dict[str, Tensor] = {}
        for kind, branch in self.branches.items():
            output = outputs[kind] = branch.output(call, weights)
            derivative = branch.first_order(call, weights, update)
            updated = partial(branch.updated_output, call, weights, update)
            self.remainders[kind].add(output, updated, derivative, batch)
            if kind == "mlp" and self.reach_tokens < REACH_TOKENS and derivative.any():
                self._add_reach(branch, call, weights, derivative, batch)
        self._add_sites(call, weights, update, outputs, batch, rows)

    def _add_reach(self, branch: Branch, call: Call, weights: Weights, target: Tensor, batch: Batch) -> None:
        """Add the part of the MLP's first-order shift that steering its input could copy, and its remainder (eq. 2)."""
        if (entry := self.mlp_entry) is None:
            return
        inputs: list[Tensor] = []
        output = branch.output(call, weights, entry, lambda x: inputs.append(x) or x)
        [x] = inputs

        def mlp(x: Tensor) -> Tensor:
            return branch.output(call, weights, entry, lambda _: x)

        mask = token_mask(batch).bool().flatten()
        mask = (mask & (mask.cumsum(0) <= REACH_TOKENS - self.reach_tokens)).reshape(x.shape[:-1])
        shift, copied = best_input_shift(mlp, x, target.reshape(output.shape), mask.to(target.device))
        batch = {"attention_mask": mask}
        self.reach_tokens += int(mask.sum())
        self.target += _energy(target, batch)
        self.copied += _energy(target, batch) - _energy(target - copied, batch)
        self.shift += _energy(shift, batch)
        self.input += _energy(x, batch)
        # The first order does not hold for a shift larger than the input, so longer shifts are shortened to its norm.
        sizes = [values.norm(dim=-1, keepdim=True) for values in (shift, x)]
        factor = (sizes[1] / sizes[0].clamp(min=torch.finfo(sizes[0].dtype).tiny)).clamp(max=1)
        steered = self.remainders["steering"]
        steered.add(output, lambda scale: mlp(x + scale * factor * shift), factor * copied, batch)

    def _add_sites(
        self, call: Call, weights: Weights, update: Weights, outputs: dict[str, Tensor], batch: Batch, rows: int
    ) -> None:
        """Add the block's shift, with the activations at the two sites that could copy it, and the skip's share."""
        updated = {**weights, **{name: weights[name] + delta for name, delta in update.items()}}
        before, after = (
            hidden_states(self.block, functional_call(self.block, dict(values), call.args, call.kwargs))
            for values in (weights, updated)
        )
        activations = {"post_block": before} | ({"post_mlp": outputs["mlp"]} if "mlp" in outputs else {})
        for site, x in activations.items():
            for moments, mask in zip(self.sites[site], split_tokens(batch, rows), strict=True):
                moments.add(unmasked(x.reshape(before.shape), mask), unmasked(after - before, mask))
        if outputs.keys() == {"attention", "mlp"} and call.args:
            skip = before - outputs["mlp"].reshape(before.shape)
            expected = call.args[0] + outputs["attention"].reshape(before.shape)
            if (skip - expected).norm() <= ADDS_UP * before.norm():  # a norm after the sum leaves no share to measure
                skip_norm, mlp_norm = (unmasked(values, batch).norm(dim=-1) for values in (skip, outputs["mlp"]))
                self.skip += (skip_norm / (skip_norm + mlp_norm)).sum().item()
                self.skip_tokens += len(skip_norm)

    def finish(self) -> LayerEquivalence:
        """Return the result of all batches."""
        reached = self.reach_tokens and self.target
        return LayerEquivalence(
            layer=self.layer,
            skip_share=self.skip / self.skip_tokens if self.skip_tokens else None,
            **{kind: sums.finish() for kind, sums in self.remainders.items()},
            pre_mlp=self.copied / self.target if reached else None,
            effort=(self.shift / self.input) ** 0.5 if reached else None,
            post_mlp=self._copied_shares("post_mlp") if self.sites["post_mlp"][0].count else None,
            post_block=self._copied_shares("post_block"),
        )

    def _copied_shares(self, site: str) -> dict[int, float]:
        fitted, held_out = self.sites[site]
        if not held_out.energy:
            return {rank: 0.0 for rank in (0, *self.ranks)}
        fits = best_fit(fitted, held_out, (0, *self.ranks), (0.0, *RIDGES))
        return {rank: 1 - fit.error / held_out.energy for rank, fit in fits.items()}


def _energy(hidden: Tensor, batch: Batch) -> float:
    return unmasked(hidden, batch).square().sum().item()
