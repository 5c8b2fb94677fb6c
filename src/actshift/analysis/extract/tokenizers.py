"""Whether two models read the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_same_tokenizer(base: PreTrainedTokenizerBase, finetuned: PreTrainedTokenizerBase) -> None:
    """Raise ActshiftError unless both tokenizers give every token the same number.

    >>> from actshift.demo import load_base
    >>> check_same_tokenizer(load_base()[1], load_base()[1])
    """
    ours, theirs = base.get_vocab(), finetuned.get_vocab()
    if ours == theirs:
        return
    token = next(token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token))
    raise ActshiftError(
        f"the fine-tuned model has another tokenizer: {token!r} is {ours.get(token, 'no token')} in the base and "
        f"{theirs.get(token, 'no token')} there, so their activations cannot be compared token by token."
    )
