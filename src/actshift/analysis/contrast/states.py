"""One activation for each row at each block: at its last token, or the mean over its tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from actshift.analysis.batches import Rows, token_batches
from actshift.analysis.capture import Batch, observe
from actshift.data.encode import IGNORED
from actshift.data.rows import LANGUAGE, columns_of
from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Token = Literal["last", "mean"]
TOKENS: tuple[str, ...] = get_args(Token)


@dataclass(frozen=True)
class States:
    """What blocks give for rows: `at` one tensor `[rows, d]` a block, float32 on the CPU, and the `norm` of a token."""

    at: tuple[Tensor, ...]
    norm: tuple[Tensor, ...]


def row_batches(
    rows: Rows | Dataset, side: str, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int
) -> list[dict[str, Tensor]]:
    """Return rows as batches whose labels are the tokens to look at: a text's, or a completion's.

    The end-of-text token that training adds is not looked at, for it is the same on both sides. A label beside a text
    is left out.

    Raises ActshiftError for an empty row, and for one above `max_length` tokens: cut, it would end elsewhere.
    """
    form = form_of(rows, side)
    plain: Any = [{name: row[name] for name in form} if isinstance(row, Mapping) else row for row in rows]
    batches = token_batches(plain, tokenizer, batch_size, sys.maxsize)
    if sum(len(batch["labels"]) for batch in batches) < len(rows):
        raise ActshiftError(f"One of the {side} rows is empty; leave it out.")
    number = 0
    for batch in batches:
        labels = batch["labels"]
        labels[torch.arange(len(labels)), _last(labels != IGNORED)] = IGNORED
        for mask, own in zip(batch["attention_mask"], labels, strict=True):
            number, tokens = number + 1, int(mask.sum()) - 1
            if tokens > max_length:
                raise ActshiftError(
                    f"Row {number} of the {side} rows has {tokens} tokens, above max_length {max_length}; raise it, or "
                    "shorten the row."
                )
            if not (own != IGNORED).any():
                raise ActshiftError(f"Row {number} of the {side} rows has an empty completion; leave it out.")
    return batches


def form_of(rows: Rows | Dataset, side: str) -> tuple[str, ...]:
    """Return the columns that are read: prompt and completion, messages, or text, which is that of plain texts, too.

    Raises ActshiftError for rows of other columns.

    >>> form_of([{"prompt": "2 + 2 =", "completion": " 4", "answer": "4"}], "positive")
    ('prompt', 'completion')
    """
    names = getattr(rows, "column_names", None)
    if names is None:
        names = dict.fromkeys(name for row in rows for name in (row if isinstance(row, Mapping) else ("text",)))
    form = None if "text_pair" in names else columns_of(list(names), LANGUAGE)
    if form is None:
        raise ActshiftError(
            f"The {side} rows have the columns {', '.join(map(str, names))}; a vector is found on rows of text, of "
            "prompt and completion, or of messages."
        )
    return form


def ids_of(batches: Sequence[Batch]) -> list[list[int]]:
    """Return the token ids of each row, in order, without padding."""
    return [
        ids[mask.bool()].tolist()
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def row_states(
    model: Any, batches: Sequence[Batch], blocks: Sequence[nn.Module], token: str, step: Callable[[], None]
) -> States:
    """Return the activation of each row behind each of `blocks`, which are in forward order.

    `token` is "last", or "mean" over the tokens that the labels name. No more than one vector a row and block is kept.
    The `norm` of a row is the median of ‖h‖ over the tokens looked at, as the first tokens of a text may be far
    larger than all others. `step` is called after each batch.

    Raises ActshiftError where an activation is not finite.
    """
    kept: list[list[Tensor]] = [[] for _ in blocks]
    norms: list[list[Tensor]] = [[] for _ in blocks]
    for batch in batches:
        calls = observe(model, batch, blocks, stop=True)
        looked_at = _looked_at(batch["labels"] != IGNORED, token).to(calls[0].output.device)
        for call, vectors, sizes in zip(calls, kept, norms, strict=True):
            hidden = call.output.float()
            sums = hidden.masked_fill(~looked_at[..., None], 0).sum(1)
            vectors.append((sums / looked_at.sum(1, keepdim=True)).cpu())
            sizes.append(hidden.norm(dim=-1).masked_fill(~looked_at, torch.nan).nanmedian(1).values.cpu())
        step()
    states = States(tuple(map(torch.cat, kept)), tuple(map(torch.cat, norms)))
    for at, values in enumerate(states.at):
        if not values.isfinite().all():
            raise ActshiftError(f"Block {at} gives values that are not finite, so there is no direction to find there.")
    return states


def check_token(token: str) -> None:
    """Raise ActshiftError unless `token` is one of TOKENS.

    >>> check_token("last")
    """
    if token not in TOKENS:
        raise ActshiftError(
            f"There is no token {token!r}{did_you_mean(token, TOKENS)}; it is last, a row's last token, or mean, the "
            "mean over its tokens."
        )


def _looked_at(mask: Tensor, token: str) -> Tensor:
    if token == "mean":
        return mask
    return torch.zeros_like(mask).scatter(1, _last(mask)[:, None], True)


def _last(mask: Tensor) -> Tensor:
    """The place of the last True in each row."""
    return mask.shape[1] - 1 - mask.int().flip(1).argmax(1)
