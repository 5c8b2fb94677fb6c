"""One activation per row and block: at the row's last token, or as the mean over its tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from actshift.analysis.batches import Rows, token_batches
from actshift.analysis.capture import Batch, capture_calls
from actshift.data.encode import IGNORE_INDEX
from actshift.data.layouts import TEMPLATE
from actshift.data.rows import LANGUAGE, find_columns
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class States(NamedTuple):
    """The activations of the rows `[rows, d]` and their norms `[rows]` after each block, float32 on the CPU."""

    by_block: list[Tensor]
    norms: list[Tensor]


def row_batches(
    rows: Rows | Dataset, side: str, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int
) -> list[dict[str, Tensor]]:
    """Return batches whose labels mark the tokens to read: a text or a completion, without the end-of-text token.

    Raises ActshiftError if a row is empty, or longer than `max_length` tokens: cut, it would end with another token.
    """
    columns = columns_read(rows, side)
    columns += TEMPLATE if "messages" in columns else ()
    plain: Any = [
        {name: row[name] for name in columns if name in row} if isinstance(row, Mapping) else row for row in rows
    ]
    batches = token_batches(plain, tokenizer, batch_size, sys.maxsize)
    if sum(len(batch["labels"]) for batch in batches) < len(rows):
        raise ActshiftError(f"One of the {side} rows is empty; leave it out.")
    numbers = count(1)
    for batch in batches:
        labels = batch["labels"]
        labels[torch.arange(len(labels)), _last(labels != IGNORE_INDEX)] = IGNORE_INDEX
        for mask, row_labels, number in zip(batch["attention_mask"], labels, numbers, strict=False):
            row, tokens = f"Row {number} of the {side} rows has", int(mask.sum()) - 1
            if tokens > max_length:
                fix = "Shorten it, or raise max_length up to the model's context"
                raise ActshiftError(f"{row} {tokens} tokens, above max_length {max_length}. {fix}.")
            if not (row_labels != IGNORE_INDEX).any():
                raise ActshiftError(f"{row} an empty completion; leave it out.")
    return batches


def columns_read(rows: Rows | Dataset, side: str) -> tuple[str, ...]:
    """Return the columns that `contrast` reads: prompt and completion, messages, or text (also for plain texts).

    Raises ActshiftError if the rows have other columns.

    >>> columns_read([{"prompt": "2 + 2 =", "completion": " 4", "answer": "4"}], "positive")
    ('prompt', 'completion')
    """
    names = getattr(rows, "column_names", None)
    if names is None:
        names = dict.fromkeys(name for row in rows for name in (row if isinstance(row, Mapping) else ("text",)))
    columns = find_columns(list(names), LANGUAGE)
    if columns is None or "text_pair" in names:
        needed = "a vector needs text, prompt and completion, or messages"
        raise ActshiftError(f"The {side} rows have the columns {', '.join(map(str, names))}; {needed}.")
    return columns


def token_ids(batches: Sequence[Batch]) -> list[list[int]]:
    """Return the token ids of each row without padding."""
    rows = (row for batch in batches for row in zip(batch["input_ids"], batch["attention_mask"], strict=True))
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def row_states(
    model: Any, batches: Sequence[Batch], blocks: Sequence[nn.Module], token: str, step: Callable[[], None]
) -> States:
    """Return the activation of each row after each of `blocks`, which are in forward order.

    `token` is "last", or "mean" for the mean over the tokens with a label. The norm of a row is the median of ‖h‖ over
    these tokens, because the first tokens of a text may be far larger. `step` is called after each batch. Raises
    ActshiftError if an activation is not finite.
    """
    rows: list[list[Tensor]] = [[] for _ in blocks]
    norms: list[list[Tensor]] = [[] for _ in blocks]
    for batch in batches:
        calls = capture_calls(model, batch, blocks, stop=True)
        mask = batch["labels"] != IGNORE_INDEX
        if token == "last":
            mask = torch.zeros_like(mask).scatter(1, _last(mask)[:, None], True)
        mask = mask.to(calls[0].output.device)
        for block, call in enumerate(calls):
            hidden = call.output.float()
            sums = hidden.masked_fill(~mask[..., None], 0).sum(1)
            rows[block].append((sums / mask.sum(1, keepdim=True)).cpu())
            norms[block].append(hidden.norm(dim=-1).masked_fill(~mask, torch.nan).nanmedian(1).values.cpu())
        step()
    states = States([torch.cat(parts) for parts in rows], [torch.cat(parts) for parts in norms])
    for block, values in enumerate(states.by_block):
        if not values.isfinite().all():
            raise ActshiftError(f"Block {block} gives values that are not finite, so no direction can be found there.")
    return states


def _last(mask: Tensor) -> Tensor:
    """Return the position of the last True in each row of `[batch, seq]`."""
    return mask.shape[1] - 1 - mask.int().flip(1).argmax(1)
