"""The measured models: Llamas with random weights, because times do not depend on the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Shape:
    """The shape of a model and of its batch."""

    width: int
    layers: int
    batch: int
    seq: int = 128
    vocabulary: int = 8192

    def __str__(self) -> str:
        return f"d {self.width}, {self.layers} layers, {self.batch} × {self.seq} tokens"

    def model(self) -> LlamaForCausalLM:
        """Return the model in evaluation mode, with the same weights in every call."""
        torch.manual_seed(0)
        heads = max(1, self.width // 64)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=round(self.width * 8 / 3 / 16) * 16,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=max(2048, 2 * self.seq),
        )
        return LlamaForCausalLM(config).eval()

    @cached_property
    def ids(self) -> Tensor:
        """The token ids of the batch, `[batch, seq]`."""
        return torch.randint(3, self.vocabulary, (self.batch, self.seq), generator=torch.Generator().manual_seed(0))

    def with_(self, **changes: int) -> Shape:
        """Return the shape with some fields changed."""
        return replace(self, **changes)


SMALL = Shape(width=256, layers=8, batch=4)
"""10.5 M parameters, as in the measurements that the bars are based on."""
MIDDLE = Shape(width=768, layers=4, batch=2)
TINY = Shape(width=64, layers=2, batch=2, seq=16, vocabulary=256)
"""For a quick check that everything runs."""
