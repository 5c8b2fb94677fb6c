"""Whether a model can learn to stop: a frozen output embedding that it never trained cannot be singled out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAME = 0.01
"""Embeddings whose distance is this share of their norm have not been told apart by any training."""


def warn_of_unknown_end(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn where the end-of-text token's output embedding is frozen and, but for noise, that of other tokens too.

    All tokens that a pretraining corpus lacks end up with one embedding, so their probabilities stay equal whatever
    the hidden state: such an end is never the likeliest token, and its loss never below log(how many there are).
    """
    head = model.get_output_embeddings()
    if head is None or head.weight.requires_grad:
        return
    weights = head.weight.detach()
    end = weights[tokenizer.eos_token_id].float()
    same = sum(int(((part.float() - end).norm(dim=1) < SAME * end.norm()).sum()) for part in weights.split(8192)) - 1
    if same:
        warnings.warn(
            f"The model cannot tell its end-of-text token {tokenizer.eos_token!r} from {same} others that it never saw "
            "either, and will not learn to stop; save its tokenizer with an eos_token that it knows.",
            stacklevel=2,
        )
