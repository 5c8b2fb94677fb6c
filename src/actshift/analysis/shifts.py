"""The shift that each half of a joint adapter makes alone, at the output of every block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from actshift.errors import ActshiftError
from actshift.sites import find_blocks, hidden_of
from actshift.tuner import halves


@torch.no_grad()
def shifts_alone(
    model: Any, batches: Iterable[Mapping[str, Tensor]], tokens: int = 2048
) -> tuple[list[Tensor], list[Tensor]]:
    """Return `h_weights - h_base` and `h_activations - h_base`, each a list with `[tokens, d]` for every block.

    `batches` are what the model is called with; the first `tokens` tokens that no attention mask leaves out are used.
    Float32, on the CPU.

    Raises ActshiftError for a model without a joint adapter, and where `batches` hold no token.

    >>> shifts_alone(model, batches)  # doctest: +SKIP
    """
    first: dict[str, list[list[Tensor]]] = {"weights": [], "activations": []}
    left = tokens
    with _evaluating(model):
        for batch in batches:
            if left <= 0:
                break
            batch = {name: value.to(model.device) for name, value in batch.items()}
            base = _block_outputs(model, batch, model.disable_adapter(), left)
            for half, kept in first.items():
                alone = _block_outputs(model, batch, halves(model, half), left)
                kept.append([one - other for one, other in zip(alone, base, strict=True)])
            left -= len(base[0])
    if left == tokens:
        raise ActshiftError("the redundancy is measured on held-out tokens, and the batches hold none; give some rows.")
    weights, activations = ([torch.cat(block) for block in zip(*kept, strict=True)] for kept in first.values())
    return weights, activations


def _block_outputs(
    model: Any, batch: dict[str, Tensor], state: AbstractContextManager[Any], limit: int
) -> list[Tensor]:
    seen: list[Tensor] = []

    def keep(block: nn.Module, args: Any, output: Any) -> None:
        hidden = hidden_of(output)
        mask = batch.get("attention_mask")
        real = hidden[mask.bool()] if mask is not None and mask.shape == hidden.shape[:2] else hidden.flatten(0, -2)
        seen.append(real[:limit].float().cpu())

    handles = [block.register_forward_hook(keep) for _, block in find_blocks(model)]  # behind the steering hook
    try:
        with state:
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
