"""One vector a text: the mean of its tokens' hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
