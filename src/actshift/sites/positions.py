"""Which tokens an intervention steers: a typed value, and the mask it stands for in a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from actshift.errors import ActshiftError, did_you_mean

Where = Literal["all", "prompt", "generated", "ends"]
WHERE: tuple[str, ...] = get_args(Where)


@dataclass(frozen=True)
class Positions:
    """The tokens to steer: all, the prompt's, the generated ones, or the first and last few of the prompt.

    Made by `all()`, `prompt()`, `generated()`, `last_token()` and `ends(first, last)`. Only attended tokens count, so
    padding on either side changes nothing, and of a prompt shorter than first + last every token is steered.

    Raises ActshiftError for an unknown word, and for numbers that are none or that no token fits.
    Source: the positions f, l of LoReFT's intervention (arXiv 2404.03592, §4.1, there a string such as "f7+l7").

    >>> Positions.ends(first=7, last=7)
    Positions(where='ends', first=7, last=7)
    >>> print(Positions.last_token())
    last prompt token
    """

    where: Where = "all"
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        """Check the word and the numbers."""
        if self.where not in WHERE:
            raise ActshiftError(
                f"there are no positions {self.where!r}{did_you_mean(self.where, WHERE)}; there are {', '.join(WHERE)}."
            )
        for name, count in (("first", self.first), ("last", self.last)):
            if type(count) is not int or count < 0:
                raise ActshiftError(f"{name} must be a whole number of prompt tokens, from 0 up, got {count!r}.")
        if (self.where == "ends") != (self.first + self.last > 0):
            raise ActshiftError(
                f"Positions({self.where!r}, first={self.first}, last={self.last}) steers "
                f"{'no token; give first or last' if self.where == 'ends' else 'a whole part'}: the first and last "
                "tokens of the prompt are Positions.ends(first=7, last=7)."
            )

    @classmethod
    def all(cls) -> Positions:
        """Every token, prompt and generated (the default)."""
        return cls()

    @classmethod
    def prompt(cls) -> Positions:
        """Every token of the prompt, none that is generated."""
        return cls("prompt")

    @classmethod
    def generated(cls) -> Positions:
        """Every token after the prompt; the first of them is predicted from the unsteered prompt."""
        return cls("generated")

    @classmethod
    def last_token(cls) -> Positions:
        """The last token of the prompt: `ends(last=1)`."""
        return cls("ends", last=1)

    @classmethod
    def ends(cls, first: int = 0, last: int = 0) -> Positions:
        """The first and the last few tokens of the prompt, as LoReFT steers."""
        return cls("ends", first, last)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Positions:
        """Return the value that `to_dict` wrote.

        Raises ActshiftError for anything else.

        >>> Positions.from_dict({"where": "ends", "first": 2})
        Positions(where='ends', first=2, last=0)
        """
        known = ("where", "first", "last")
        if not isinstance(values, dict) or "where" not in values:
            raise ActshiftError(f"positions are stored as a dict such as {{'where': 'prompt'}}, got {values!r}.")
        for name in values:
            if name not in known:
                raise ActshiftError(
                    f"unknown field {name!r} of positions{did_you_mean(name, known)}; they take {', '.join(known)}. "
                    "If a newer actshift wrote the file: pip install -U actshift."
                )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the value ready for JSON, as `from_dict` reads it."""
        ends = {"first": self.first, "last": self.last} if self.where == "ends" else {}
        return {"where": self.where, **ends}

    def __str__(self) -> str:
        """Return the positions in words, to follow "steers" or "at"."""
        if self.where == "ends":
            counts = [f"{name} {n}" for name, n in (("first", self.first), ("last", self.last)) if n]
            return "last prompt token" if counts == ["last 1"] else f"{' and '.join(counts)} prompt tokens"
        return {"all": "all tokens", "prompt": "prompt tokens", "generated": "generated tokens"}[self.where]


def token_index(attended: Tensor) -> Tensor:
    """Return each token's place among the attended tokens of its row, from 0, and -1 on padding.

    `attended [batch, seq]` bool; returns `[batch, seq]` int64.

    >>> token_index(torch.tensor([[False, True, True]])).tolist()
    [[-1, 0, 1]]
    """
    return (attended.cumsum(-1) - 1).masked_fill(~attended, -1)


def steered_tokens(positions: Positions, index: Tensor, length: Tensor) -> Tensor:
    """Return which tokens are steered, `[batch, seq]` bool.

    `index [batch, seq]` is `token_index` of the tokens at hand, which may be any stretch of their rows (a whole
    batch, a chunk, the one token of a decoding step), and `length [batch, 1]` the number of attended prompt tokens
    in each whole row. Padding is never steered, except by `all`.

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
