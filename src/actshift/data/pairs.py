"""Pairs of related texts: split a batch into its two sides, pool hidden states, and compute the contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PAIR = "pair_"  # the prefix of the second text's fields, as in `pair_input_ids`
COSINE_SCALE = 20.0  # of cosines before the softmax: the default of sentence-transformers, a temperature of 0.05


def split_pair(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the first and of the second text of an example or a batch, under the model's names.

    >>> split_pair({"input_ids": [5], "pair_input_ids": [6]})
    ({'input_ids': [5]}, {'input_ids': [6]})
    """
    first = {name: value for name, value in batch.items() if not name.startswith(PAIR)}
    return first, {name.removeprefix(PAIR): value for name, value in batch.items() if name.startswith(PAIR)}


def normalized_means(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the means of hidden states [batch, seq, d] over the tokens of a mask [batch, seq], as unit vectors.

    The vectors [batch, d] have the dtype of `hidden`. The dot product of two of them is their cosine.

    >>> import torch
    >>> normalized_means(torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[0.6000, 0.8000]])
    """
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    means = (hidden * weights).sum(1) / weights.sum(1)
    return means / means.norm(dim=-1, keepdim=True)


def contrastive_loss(model: Any, batch: Mapping[str, Tensor], scale: float = COSINE_SCALE) -> Tensor:
    """Return the mean over i of -log softmax_j(scale · cos(u_i, v_j)) at j = i.

    u and v are the `normalized_means` of the hidden states for the two texts of each row. The second texts of the
    other rows in the batch are the negatives.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748; with in-batch negatives Henderson et al., arXiv 1705.00652.
    """
    import torch

    sides = split_pair(batch)
    u, v = (normalized_means(model(**side).last_hidden_state.float(), side["attention_mask"]) for side in sides)
    return torch.nn.functional.cross_entropy(scale * u @ v.T, torch.arange(len(u), device=u.device))
