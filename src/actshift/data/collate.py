"""Collate tokenized examples into one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.data.encode import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def padded(examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return examples as one batch that is padded on the right.

    Returns:
        An int64 tensor for each field: [batch, seq] for lists with one number per token, [batch] for single numbers
        such as a class. Each `input_ids` field also has an `attention_mask` [batch, seq].
    """
    import torch

    from actshift.loading import pad_id

    pad = pad_id(tokenizer)
    padding = {"input_ids": pad, "pair_input_ids": pad, "labels": IGNORED}

    def pad_right(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
        longest = max(map(len, sequences))
        return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences])

    batch: dict[str, Tensor] = {}
    for name in examples[0]:
        values = [example[name] for example in examples]
        if isinstance(values[0], int):
            batch[name] = torch.tensor(values)
            continue
        batch[name] = pad_right(values, padding.get(name, 0))
        if name.endswith("input_ids"):
            masks = [[1] * len(ids) for ids in values]
            batch[name.replace("input_ids", "attention_mask")] = pad_right(masks, 0)
    return batch
