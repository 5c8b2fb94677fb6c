"""A base model and its fine-tuned twin, run on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.analysis.capture import Batch, hidden_states, inputs_of, observe, unmasked
from actshift.analysis.equivalence import check_twins
from actshift.data.encode import SCALE, unit_means
from actshift.errors import ActshiftError
from actshift.sites import find_blocks, with_hidden
from actshift.sites.blocks import unwrap


@dataclass(frozen=True)
class ModelPair:
    """Two models of one architecture, with their blocks."""

    base: Any
    finetuned: Any
    blocks: tuple[nn.Module, ...]
    finetuned_blocks: tuple[nn.Module, ...]
    outside: tuple[str, ...]

    @classmethod
    def of(cls, base: nn.Module, finetuned: nn.Module) -> ModelPair:
        """Check that one can stand for the other.

        Raises ActshiftError for models of different architecture, width, depth or vocabulary, or of the same weights.
        """
        ours, theirs = (
            {name: p for name, p in unwrap(model).named_parameters() if "lora_" not in name}
            for model in (base, finetuned)
        )
        check_twins(ours, theirs)
        found = find_blocks(base)
        changed = [name for name, p in ours.items() if not torch.equal(p.cpu(), theirs[name].to(p).cpu())]
        if not changed:
            raise ActshiftError("the two models have the same weights, so there is nothing to extract.")
        outside = [name for name in changed if not any(name.startswith(f"{block}.") for block, _ in found)]
        blocks, others = ([block for _, block in find_blocks(model)] for model in (base, finetuned))
        return cls(base, finetuned, tuple(blocks), tuple(others), tuple(outside))

    def after(self, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what a block returns in the base, steered as it is now, and in its twin, `[batch, seq, d]` both."""
        [ours] = observe(self.base, batch, [self.blocks[layer]], stop=True)
        [theirs] = observe(self.finetuned, batch, [self.finetuned_blocks[layer]], stop=True)
        return ours.output, theirs.output.to(ours.output)

    def with_oracle(self, batch: Batch, look: Callable[[int, Tensor, Tensor], None]) -> Tensor:
        """Return the base's logits with every block shifted by its oracle; `look` hears layer, activation and shift.

        Each shift is computed on the stream that the oracle has steered already.
        """
        calls = observe(self.finetuned, batch, self.finetuned_blocks)
        with _hooked(self.blocks, lambda layer, x: _told(look, layer, x, calls[layer].output.to(x))):
            return logits(self.base, batch)


def _told(look: Callable[[int, Tensor, Tensor], None], layer: int, x: Tensor, wanted: Tensor) -> Tensor:
    look(layer, x, wanted - x)
    return wanted


@contextmanager
def _hooked(blocks: Sequence[nn.Module], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    def hook(layer: int) -> Any:
        def after(module: nn.Module, args: Any, output: Any) -> Any:
            return with_hidden(output, change(layer, hidden_states(module, output)))

        return after

    handles = [block.register_forward_hook(hook(layer)) for layer, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def logits(model: Any, batch: Batch) -> Tensor:
    """Return the logits of a batch: `[batch, seq, vocabulary or classes]`, of a class a text `[batch, classes]`.

    A model without a head predicts what its vectors are trained to: which text of the batch is near, `[batch, batch]`,
    by 20 times the cosines of the texts' mean vectors.
    """
    inputs = inputs_of(model, batch)
    output = model(**inputs)
    if "logits" in output:
        return output.logits
    vectors = unit_means(output.last_hidden_state.float(), inputs["attention_mask"])
    return SCALE * vectors @ vectors.T


def divergence(wanted: Tensor, given: Tensor, batch: Batch) -> Tensor:
    """Return KL(wanted ‖ given) of the predicted distributions, in nats: for every real token, or every text."""
    wanted, given = (F.log_softmax(_predicted(one, batch).float(), dim=-1) for one in (wanted, given))
    return (wanted.exp() * (wanted - given)).sum(-1)


def _predicted(logits: Tensor, batch: Batch) -> Tensor:
    """The predictions that count: of the real tokens, or of the texts that have any."""
    return unmasked(logits, batch) if logits.ndim == 3 else logits[batch["attention_mask"].any(1).to(logits.device)]
