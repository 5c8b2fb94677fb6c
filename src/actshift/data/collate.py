"""Examples as one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.data.encode import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def padded(examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return examples as one batch, padded on the right: what they hold, and an `attention_mask` of the tokens.

    What is one number a token is `[batch, seq]`, what is one number a text `[batch]`, all int64.
    """
    import torch

    from actshift.loading import pad_id

    pad = pad_id(tokenizer)
    fills = {"input_ids": pad, "pair_input_ids": pad, "labels": IGNORED}

    def filled(rows: Sequence[Any], fill: int) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])

    batch: dict[str, Tensor] = {}
    for name in examples[0]:
        rows = [example[name] for example in examples]
        if isinstance(rows[0], int):
            batch[name] = torch.tensor(rows)
            continue
        batch[name] = filled(rows, fills.get(name, 0))
        if name.endswith("input_ids"):
            batch[name.replace("input_ids", "attention_mask")] = filled([[1] * len(row) for row in rows], 0)
    return batch
