"""Texts that belong together: one vector a text, and the loss that brings partners near each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PAIR = "pair_"
"""How the names of the second text's inputs begin."""
SCALE = 20.0
"""What cosines are multiplied with before the softmax: sentence-transformers' default, a temperature of 0.05."""


def unit_means(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `hidden` [batch, seq, d] over the tokens of `mask` [batch, seq], at length 1: [batch, d].

    The dot product of two such vectors is their cosine.

    >>> import torch
    >>> unit_means(torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[0.6000, 0.8000]])
    """
    counted = mask.unsqueeze(-1).to(hidden.dtype)
    means = (hidden * counted).sum(1) / counted.sum(1)
    return means / means.norm(dim=-1, keepdim=True)


def sides(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is the first text's and what is the second's of an example or a batch of pairs, names as a model's.

    >>> sides({"input_ids": [5], "pair_input_ids": [6]})
    ({'input_ids': [5]}, {'input_ids': [6]})
    """
    first = {name: value for name, value in batch.items() if not name.startswith(PAIR)}
    return first, {name.removeprefix(PAIR): value for name, value in batch.items() if name.startswith(PAIR)}


def partner_loss(model: Any, batch: Mapping[str, Tensor], scale: float = SCALE) -> Tensor:
    """Return the mean of -log softmax_j(scale · cos(u_i, v_j)) at j = i: the other rows' partners are the negatives.

    u and v are the `unit_means` of the two texts of each row of a batch, as `model` reads them.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748; with in-batch negatives Henderson et al., arXiv 1705.00652.
    """
    import torch
    from torch.nn import functional as F

    u, v = (unit_means(model(**side).last_hidden_state.float(), side["attention_mask"]) for side in sides(batch))
    return F.cross_entropy(scale * u @ v.T, torch.arange(len(u), device=u.device))
