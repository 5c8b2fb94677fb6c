"""Measure and penalise the overlap of the shifts of a joint adapter's two halves, in a Llama model.

Shapes: `tokens`, the unmasked tokens of a batch; `d`, the width of the residual stream; `k`, up to 8 directions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from actshift.analysis.capture import capture_calls, half_shifts, output_hooks
from actshift.orthogonality import orthonormal_basis, principal_cosines
from actshift.sites import find_blocks
from actshift.tuner import halves, steering_layers

NAME = "default"
DIRECTIONS, NEGLIGIBLE = 8, 1e-2  # as in actshift.analysis.redundancy
FLOOR = 1e-3
"""A shift far below this share of the stream's norm does not count as overlap: its direction is not yet chosen."""


def output_maps(block: Any) -> list[Any]:
    """Return the two LoRA layers of a block that write into the residual stream."""
    return [block.self_attn.o_proj, block.mlp.down_proj]


def written_columns(block: Any) -> Tensor:
    """Return the LoRA-B of both output maps, `[d, 2r]`."""
    return torch.cat([layer.lora_B[NAME].weight.detach() for layer in output_maps(block)], dim=1)


def constrain_to_both_maps(model: nn.Module) -> None:
    """Extend the orthogonality rule of each block to the LoRA of its attention output map."""
    for layer in steering_layers(model).values():
        layer.constraints[NAME] = replace(layer.constraints[NAME], writers=output_maps(layer.host))


def moment_cosine(steering: Tensor, weights: Tensor) -> Tensor:
    """Return the cosine between the second moments SᵀS and WᵀW of two sets of shifts S, W `[tokens, d]`.

    It is ‖S Wᵀ‖²_F / (‖S Sᵀ‖_F ‖W Wᵀ‖_F): 0 if the shifts span orthogonal subspaces, and 1 if they have the same
    directions with the same energy.
    """
    floor = FLOOR**2 * len(steering)
    cross, own, other = steering @ weights.T, steering @ steering.T, weights @ weights.T
    return cross.square().sum() / ((own.norm() + floor) * (other.norm() + floor))


class LocalShifts:
    """Record for each block the shift of the steering half, and what LoRA writes into the stream, of a forward pass.

    Both are divided by the norm of the block's output at the token, because the first token can have a hundred times
    the norm of the others. LoRA writes (α / r) B A m, summed over the MLP output map and the attention output map.
    Gradients flow to the shift's own parameters only: the steering half yields, as under the paper's rule.
    """

    def __init__(self, model: nn.Module) -> None:
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self.mask: Tensor | None = None
        self.written: dict[int, Tensor] = {}
        self.handles = [model.register_forward_pre_hook(self._start, with_kwargs=True)]
        for layer in steering_layers(model).values():
            write = partial(self._add_written, layer.layer_index)
            self.handles += [each.register_forward_hook(write) for each in output_maps(layer.host)]
            self.handles.append(layer.register_forward_hook(self._keep))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()

    def _start(self, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        self.pairs, self.written, self.mask = {}, {}, kwargs.get("attention_mask")

    @torch.no_grad()
    def _add_written(self, block: int, lora: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        written = lora.scaling[NAME] * lora.lora_B[NAME](lora.lora_A[NAME](args[0]))
        self.written[block] = self.written[block] + written if block in self.written else written

    def _keep(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        stream = args[0].detach()
        size = stream.norm(dim=-1, keepdim=True)
        mask = torch.ones(stream.shape[:-1], dtype=torch.bool) if self.mask is None else self.mask.bool()
        pair = layer.lora_steer[NAME](stream) / size, self.written.pop(layer.layer_index) / size
        self.pairs[layer.layer_index] = pair[0][mask], pair[1][mask]


@contextmanager
def penalised_overlap(model: nn.Module, weight: float) -> Generator[None]:
    """Train with `weight` times the sum over blocks of `moment_cosine` of each batch as a part of the loss.

    The trainer computes its own loss from log-probabilities. The gradient of the penalty is therefore accumulated
    during the forward pass.
    """
    local = LocalShifts(model)

    def add(module: nn.Module, args: Any, output: Any) -> None:
        if module.training:
            (weight * torch.stack([moment_cosine(*pair) for pair in local.pairs.values()]).sum()).backward()

    local.handles.append(model.register_forward_hook(add))
    try:
        yield
    finally:
        local.remove()


@torch.no_grad()
def local_overlaps(model: nn.Module, tokens: Tensor) -> dict[str, float]:
    """Return means over blocks of figures of `LocalShifts` for rows of tokens `[rows, length]`, without the first.

    `local` is the `moment_cosine`, `local_token` the mean squared cosine at one token, and `steering_size` and
    `weights_size` the root mean squares of the relative shifts.
    """
    local = LocalShifts(model)
    model.eval()(input_ids=tokens)
    local.remove()
    pairs = [later_tokens(pair, tokens) for pair in local.pairs.values()]
    return {
        "local": fmean(moment_cosine(*pair).item() for pair in pairs),
        "local_token": fmean(torch.cosine_similarity(*pair).square().mean().item() for pair in pairs),
        "steering_size": fmean(s.square().sum(-1).mean().sqrt().item() for s, _ in pairs),
        "weights_size": fmean(w.square().sum(-1).mean().sqrt().item() for _, w in pairs),
    }


def later_tokens(shifts: Sequence[Tensor], tokens: Tensor) -> list[Tensor]:
    """Return shifts `[rows · length, d]` without the first token of each row, which has an outlying norm."""
    rows, length = tokens.shape
    return [shift.view(rows, length, -1)[:, 1:].flatten(0, 1) for shift in shifts]


def leading(shift: Tensor) -> Tensor:
    """Return the leading directions of a shift `[tokens, d]` as rows `[k, d]`."""
    _, size, right = torch.linalg.svd(shift.double(), full_matrices=False)
    return right[:DIRECTIONS][size[:DIRECTIONS] > NEGLIGIBLE * size[0]].float()


def subspace_overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean squared cosine between the spans of the rows of two matrices `[k, d]`."""
    return principal_cosines(first, second.T).square().mean().item()


def mean_overlap(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the `subspace_overlap` averaged over blocks."""
    return fmean(subspace_overlap(*pair) for pair in zip(first, second, strict=True))


def accumulated_shifts(model: nn.Module, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Return the shift of the stream after each block, `[tokens, d]`, by the halves that cause it alone."""
    both = half_shifts(model, [{"input_ids": tokens}], tokens.numel())
    return {half: later_tokens(shifts, tokens) for half, shifts in zip(("weights", "activations"), both, strict=True)}


def weights_shifts(model: Any, tokens: Tensor) -> list[Tensor]:
    """Return the shift of the stream after each block that a plain LoRA causes, `[tokens, d]`."""
    blocks, batch = [block for _, block in find_blocks(model)], {"input_ids": tokens}
    with torch.no_grad():
        after = capture_calls(model.eval(), batch, blocks)
        with model.disable_adapter():
            before = capture_calls(model, batch, blocks)
    return later_tokens([a.output - b.output for a, b in zip(after, before, strict=True)], tokens)


def redundancy_figures(model: nn.Module, tokens: Tensor) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """Return the overlaps of a joint adapter, averaged over blocks, and the leading directions of each half's shift.

    `read` compares W_down with the LoRA-B of the MLP output map, and `write` compares W_up with both LoRA-Bs.
    `shift` and `cosine` compare the accumulated shifts. `seen` is the share of the energy of LoRA's accumulated shift
    within the span of the columns that the block's own LoRA can write.
    """
    blocks = [layer.host for layer in steering_layers(model).values()]
    shifts = [layer.lora_steer[NAME] for layer in steering_layers(model).values()]
    columns = [written_columns(block) for block in blocks]
    mlp_columns = [output_maps(block)[1].lora_B[NAME].weight.detach() for block in blocks]
    moved = accumulated_shifts(model, tokens)
    directions = {half: [leading(shift) for shift in each] for half, each in moved.items()}
    pairs = list(zip(moved["weights"], moved["activations"], strict=True))
    figures = {
        "read": mean_overlap([shift.down.weight.detach() for shift in shifts], [each.T for each in mlp_columns]),
        "write": mean_overlap([shift.up.weight.detach().T for shift in shifts], [each.T for each in columns]),
        "shift": mean_overlap(directions["weights"], directions["activations"]),
        "cosine": fmean(torch.cosine_similarity(*pair).mean().item() for pair in pairs),
        "seen": fmean(_energy_within(w, each) for (w, _), each in zip(pairs, columns, strict=True)),
    }
    return figures | local_overlaps(model, tokens), directions


def _energy_within(shift: Tensor, columns: Tensor) -> float:
    inside = shift.double() @ orthonormal_basis(columns)
    return (inside.square().sum() / shift.double().square().sum()).item()


@torch.no_grad()
def overlap_of_random_writing(model: nn.Module, tokens: Tensor, directions: Mapping[str, Sequence[Tensor]]) -> float:
    """Return the shift overlap with every W_up replaced by a random matrix of the same norm; the model is restored."""
    torch.manual_seed(0)
    ups = [layer.lora_steer[NAME].up.weight for layer in steering_layers(model).values()]
    before = [up.clone() for up in ups]
    for up in ups:
        random = torch.randn_like(up)
        up.copy_(random * (up.norm() / random.norm()))
    moved = accumulated_shifts(model, tokens)["activations"]
    for up, trained in zip(ups, before, strict=True):
        up.copy_(trained)
    return mean_overlap(directions["weights"], [leading(shift) for shift in moved])


def gradient_directions(model: Any, tokens: Tensor, prompt: int) -> list[Tensor]:
    """Return the leading directions `[k, d]` of the loss gradient at each block's output, over all later tokens.

    `tokens [rows, length]` starts with `prompt` tokens of the prompt; the loss is computed on the rest.
    """
    labels = tokens.clone()
    labels[:, :prompt] = -100
    outputs: list[Tensor] = []
    with output_hooks([block for _, block in find_blocks(model)], lambda _, call: outputs.append(call.output)):
        loss = model.eval()(input_ids=tokens, labels=labels).loss
    return [leading(gradient) for gradient in later_tokens(torch.autograd.grad(loss, outputs), tokens)]


def half_accuracies(model: nn.Module, score: Any) -> Iterator[tuple[str, float]]:
    """Yield each half with the accuracy of `score(model)`, a list of bools, with the other half switched off."""
    for half in ("weights", "activations"):
        with halves(model, half):
            yield half, fmean(score(model))
