"""Collate tokenized examples into one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.data.encode import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def pad_batch(examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return examples as one batch of int64 tensors, padded on the right.

    A list with one number per token becomes [batch, seq], and a single number such as a class becomes [batch]. Each
    `input_ids` field also has an `attention_mask` [batch, seq].
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from actshift.loading import pad_id

    pad = pad_id(tokenizer)
    padding = {"input_ids": pad, "pair_input_ids": pad, "labels": IGNORE_INDEX}
    batch: dict[str, Tensor] = {}
    for name in examples[0]:
        values = [torch.tensor(example[name], dtype=torch.long) for example in examples]
        if values[0].ndim == 0:
            batch[name] = torch.stack(values)
            continue
        batch[name] = pad_sequence(values, batch_first=True, padding_value=padding.get(name, 0))
        if name.endswith("input_ids"):
            mask = pad_sequence([torch.ones_like(ids) for ids in values], batch_first=True)
            batch[name.replace("input_ids", "attention_mask")] = mask
    return batch
