"""A reference for steering at positions: each row alone, without padding or cache."""

from __future__ import annotations

import torch
from torch import Tensor

from actshift import SteeringConfig, attach
from actshift.sites import Positions
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model, randomise
from tests.sites.test_positions import steered_by_hand

PROMPTS = [[5, 17, 33, 8, 60, 12, 7], [9, 41], [23, 71, 3, 50]]
"""Prompts of 7, 2 and 4 tokens. In the second, the first two tokens and the last one overlap."""

POSITIONS = {
    "prompt": Positions.prompt(),
    "generated": Positions.generated(),
    "last": Positions.last_token(),
    "ends": Positions.ends(first=2, last=1),
}


def steered(name: str, positions: Positions, **config):
    """Return a model of the zoo with random adapter weights, in eval mode."""
    model = attach(fresh_model(name), SteeringConfig(rank=4, positions=positions, **config))
    randomise(model)
    return model.eval()


def batch_of(rows: list[list[int]], padding: str = "left") -> dict[str, Tensor]:
    """Return token ids and attention mask of rows of different lengths, padded with 0."""
    width = max(map(len, rows))

    def padded(values: list[int]) -> list[int]:
        pad = [0] * (width - len(values))
        return pad + values if padding == "left" else values + pad

    ids, mask = [padded(row) for row in rows], [padded([1] * len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def reference_logits(model, name: str, row: list[int], prompt: int, adapter: str = "default") -> Tensor:
    """Return the logits `[seq, vocab]` of one row, whose first `prompt` tokens are its prompt."""
    base = fresh_model(name)
    for path, layer in steering_layers(model.get_base_model()).items():
        positions, shift = layer.positions[adapter], layer.lora_steer[adapter]
        selected = torch.tensor(steered_by_hand(positions, prompt, len(row) - prompt))[:, None]

        def at_output(host, args, output, selected=selected, shift=shift):
            hidden = output[0] if isinstance(output, tuple) else output
            mask = selected if hidden.ndim == 2 else selected[None]
            hidden = hidden + mask * shift(hidden)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        def at_input(host, args, selected=selected, shift=shift):
            return (args[0] + selected[None] * shift(args[0]),)

        host = base.get_submodule(path.rpartition(".")[0])
        if layer.at_input:
            host.register_forward_pre_hook(at_input)
        else:
            host.register_forward_hook(at_output)
    return base(input_ids=torch.tensor([row])).logits[0]
