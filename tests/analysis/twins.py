"""A base model and an updated twin of it, with nothing random about what the update can do."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.zoo import ARCHITECTURES, WIDTH, example_inputs

HALF = WIDTH // 2


def batches(name: str = "llama", count: int = 2, batch: int = 3, seq: int = 9) -> list[dict[str, Tensor]]:
    return [example_inputs(name, batch, seq, seed) for seed in range(count)]


def moved(base: nn.Module, scale: float = 0.05, part: str = "") -> PreTrainedModel:
    """A copy with noise on every weight whose name holds `part`, of `scale` its own size."""
    twin, draw = deepcopy(base), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if part in name:
                noise = torch.randn(parameter.shape, generator=draw).to(parameter)
                parameter.add_(scale * parameter.norm() / parameter.numel() ** 0.5 * noise)
    return twin


def disjoint(silent_mlp: bool = False) -> PreTrainedModel:
    """A block whose skip lives in the first half of the coordinates, and whose MLP writes the second.

    With `silent_mlp` the MLP writes nothing, and it is the attention that writes the second half.
    """
    model = ARCHITECTURES["llama"](num_hidden_layers=1, tie_word_embeddings=False).double()
    block = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, HALF:] = 0
        block.self_attn.o_proj.weight[slice(HALF) if silent_mlp else slice(HALF, None)] = 0
        block.mlp.down_proj.weight[None if silent_mlp else slice(HALF)] = 0
    return model


def left_multiplied(base: nn.Module, name: str, rank: int = 2) -> PreTrainedModel:
    """A copy with one weight W made (I + M) W, where M has this rank."""
    twin, draw = deepcopy(base), torch.Generator().manual_seed(2)
    with torch.no_grad():
        weight = twin.get_parameter(name)
        left, right = (torch.randn(WIDTH, rank, generator=draw).to(weight) / WIDTH**0.5 for _ in range(2))
        weight.add_(left @ (right.T @ weight))
    return twin
