"""A base model and its fine-tuned version, run on the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actshift.analysis.capture import Batch, Call, capture_calls, output_hooks, unlabelled_inputs, unmasked
from actshift.analysis.equivalence import check_same_shapes
from actshift.data.pairs import COSINE_SCALE, normalized_means
from actshift.errors import ActshiftError
from actshift.sites import find_blocks
from actshift.sites.blocks import unwrap

Step = Callable[[], None]


@dataclass(frozen=True)
class ModelPair:
    """Two models of one architecture with their blocks. `outside` names the changed weights that no block contains."""

    base: Any
    finetuned: Any
    blocks: tuple[nn.Module, ...]
    finetuned_blocks: tuple[nn.Module, ...]
    outside: tuple[str, ...]

    @classmethod
    def of(cls, base: nn.Module, finetuned: nn.Module) -> ModelPair:
        """Pair two versions of one model. Raises ActshiftError if their shapes differ or their weights are the same."""
        weights, updated = (
            {name: p for name, p in unwrap(model).named_parameters() if "lora_" not in name}
            for model in (base, finetuned)
        )
        check_same_shapes(weights, updated)
        changed = [name for name, p in weights.items() if not torch.equal(p.cpu(), updated[name].to(p).cpu())]
        if not changed:
            raise ActshiftError("The two models have the same weights, so there is nothing to extract.")
        prefixes, blocks = zip(*find_blocks(base), strict=True)
        outside = tuple(name for name in changed if not name.startswith(tuple(f"{prefix}." for prefix in prefixes)))
        return cls(base, finetuned, blocks, tuple(block for _, block in find_blocks(finetuned)), outside)

    def block_outputs(self, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the outputs `[batch, seq, d]` of a block in the base, with its current steering, and fine-tuned."""
        sides = ((self.base, self.blocks), (self.finetuned, self.finetuned_blocks))
        h, target = (capture_calls(model, batch, [blocks[layer]], stop=True)[0].output for model, blocks in sides)
        return h, target.to(h)

    def oracle_logits(self, batch: Batch, visit: Callable[[int, Tensor, Tensor], None]) -> Tensor:
        """Return the logits of the base when the oracle shifts every block's output to the fine-tuned one.

        `visit` receives each layer, its activation h and the shift h_finetuned - h, both `[batch, seq, d]`, on the
        stream that the oracle has already shifted at earlier blocks.
        """
        calls = capture_calls(self.finetuned, batch, self.finetuned_blocks)

        def steer(layer: int, call: Call) -> Tensor:
            target = calls[layer].output.to(call.output)
            visit(layer, call.output, target - call.output)
            return target

        with output_hooks(self.blocks, steer):
            return logits(self.base, batch)


def logits(model: Any, batch: Batch) -> Tensor:
    """Return the logits of a batch: `[batch, seq, vocabulary or tags]`, or `[batch, classes]` of a text classifier.

    A model without a head predicts which text of the batch is near, `[batch, batch]`: 20 times the cosines of the
    texts' mean vectors, as in its training.
    """
    inputs = unlabelled_inputs(model, batch)
    output = model(**inputs)
    if "logits" in output:
        return output.logits
    vectors = normalized_means(output.last_hidden_state.float(), inputs["attention_mask"])
    return COSINE_SCALE * vectors @ vectors.T


def divergence(reference: Tensor, predicted: Tensor, batch: Batch) -> Tensor:
    """Return KL(reference ‖ predicted) of two logits in nats, for every unmasked token, or every text with one."""
    p, q = (F.log_softmax(_of_unmasked(logits, batch).float(), dim=-1) for logits in (reference, predicted))
    return (p.exp() * (p - q)).sum(-1)


def _of_unmasked(logits: Tensor, batch: Batch) -> Tensor:
    return unmasked(logits, batch) if logits.ndim == 3 else logits[batch["attention_mask"].any(1).to(logits.device)]
