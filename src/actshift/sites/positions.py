"""Token positions that an intervention steers, and the mask of steered tokens in a batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from actshift.errors import ActshiftError, check_choice, check_fields, show

Where = Literal["all", "prompt", "generated", "ends"]


@dataclass(frozen=True)
class Positions:
    """The tokens to steer: all tokens, the prompt, the generated tokens, or the first and last few of the prompt.

    Create it with `all()`, `prompt()`, `generated()`, `last_token()` or `ends(first, last)`. Padding on either side
    does not count, because only attended tokens are counted. If a prompt is shorter than first + last, all its tokens
    are steered.

    Raises:
        ActshiftError: an unknown `where`, a negative or non-integer count, "ends" without tokens, or counts with
            another `where`.

    Source: the positions f and l of LoReFT's interventions, arXiv 2404.03592, section 4.1 (there a string such as
    "f7+l7"); docs/method.md#positions.

    >>> Positions.ends(first=7, last=7)
    Positions(where='ends', first=7, last=7)
    >>> print(Positions.last_token())
    last prompt token
    """

    where: Where = "all"
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        check_choice("positions", self.where, get_args(Where))
        for name, count in (("first", self.first), ("last", self.last)):
            if type(count) is not int or not 0 <= count < 2**31:
                raise ActshiftError(f"{name} must be a whole number of prompt tokens, from 0 up, got {show(count)}.")
        if (self.where == "ends") != (self.first + self.last > 0):
            problem = "steers no token" if self.where == "ends" else "has counts, which only 'ends' takes"
            raise ActshiftError(f"{self!r} {problem}: give first or last, as in Positions.ends(first=7, last=7).")

    @classmethod
    def all(cls) -> Positions:
        """Steer every token, prompt and generated (the default)."""
        return cls()

    @classmethod
    def prompt(cls) -> Positions:
        """Steer every token of the prompt, and no generated token."""
        return cls("prompt")

    @classmethod
    def generated(cls) -> Positions:
        """Steer every generated token. The first of them is still predicted from the unsteered prompt."""
        return cls("generated")

    @classmethod
    def last_token(cls) -> Positions:
        """Steer the last token of the prompt, like `ends(last=1)`."""
        return cls("ends", last=1)

    @classmethod
    def ends(cls, first: int = 0, last: int = 0) -> Positions:
        """Steer the first and the last few tokens of the prompt, as LoReFT does."""
        return cls("ends", first, last)

    @classmethod
    def from_dict(cls, values: Any) -> Positions:
        """Return the positions that `to_dict` described, or raise ActshiftError.

        >>> Positions.from_dict({"where": "ends", "first": 2})
        Positions(where='ends', first=2, last=0)
        """
        if not isinstance(values, dict) or "where" not in values:
            raise ActshiftError(f"Positions are stored as a dict such as {{'where': 'prompt'}}, got {show(values)}.")
        check_fields("positions", values, ("where", "first", "last"))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict, for `from_dict`."""
        return dataclasses.asdict(self) if self.where == "ends" else {"where": self.where}

    def __str__(self) -> str:
        if self.where != "ends":
            return f"{self.where} tokens"
        counts = [f"{name} {n}" for name, n in (("first", self.first), ("last", self.last)) if n]
        return "last prompt token" if counts == ["last 1"] else f"{' and '.join(counts)} prompt tokens"


def token_index(attended: Tensor) -> Tensor:
    """Return the index `[batch, seq]` of each token among its row's `attended [batch, seq]` tokens; -1 for padding.

    >>> token_index(torch.tensor([[False, True, True]])).tolist()
    [[-1, 0, 1]]
    """
    return (attended.cumsum(-1) - 1).masked_fill(~attended, -1)


def steered_tokens(positions: Positions, index: Tensor, length: Tensor) -> Tensor:
    """Return the mask of steered tokens, `[batch, seq]` bool. Padding is steered only by `Positions.all()`.

    Args:
        positions: the tokens to steer.
        index: the `token_index [batch, seq]` of the current tokens: whole rows or any slice, as in a decoding step.
        length: the number of attended prompt tokens of each whole row, `[batch, 1]`.

    >>> index = token_index(torch.tensor([[True, True, True, True], [False, False, True, True]]))
    >>> steered_tokens(Positions.last_token(), index, torch.tensor([[3], [1]])).long().tolist()
    [[0, 0, 1, 0], [0, 0, 1, 0]]
    """
    if positions.where == "all":
        return torch.ones_like(index, dtype=torch.bool)
    if positions.where == "generated":
        return (index >= length) & (index >= 0)
    prompt = (index >= 0) & (index < length)
    if positions.where == "prompt":
        return prompt
    return prompt & ((index < positions.first) | (index >= length - positions.last))
