"""The contrastive loss of pairs: other rows of the batch are the negatives."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actshift.data.pairs import contrastive_loss, normalized_means, split_pair


def embed(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
    """Stand in for an encoder: the hidden state of a token is one of two unit vectors."""
    return SimpleNamespace(last_hidden_state=torch.eye(2)[input_ids])


def batch(second: list[list[int]]) -> dict[str, torch.Tensor]:
    ones = torch.ones(2, 1, dtype=torch.long)
    return {
        "input_ids": torch.tensor([[0], [1]]),
        "attention_mask": ones,
        "pair_input_ids": torch.tensor(second),
        "pair_attention_mask": ones,
    }


def test_the_loss_is_the_cross_entropy_of_scaled_cosines() -> None:
    assert contrastive_loss(embed, batch([[0], [1]]), scale=3.0).item() == pytest.approx(log(1 + exp(-3)))
    assert contrastive_loss(embed, batch([[1], [0]]), scale=3.0).item() == pytest.approx(log(1 + exp(3)))


def test_the_sides_have_the_names_of_the_model_inputs() -> None:
    first, second = split_pair(batch([[0], [1]]))
    assert first.keys() == second.keys() == {"input_ids", "attention_mask"}
    assert second["input_ids"].tolist() == [[0], [1]]


def test_padding_does_not_change_the_mean() -> None:
    hidden, mask = torch.randn(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    vectors = normalized_means(hidden, mask)
    assert torch.allclose(vectors[0], normalized_means(hidden[:1, :3], mask[:1, :3])[0])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2))
