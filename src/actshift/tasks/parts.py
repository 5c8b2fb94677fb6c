"""Which rows of a source's split belong to a split of a task: all of them, or a seeded share."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

SPLITS = ("train", "validation", "test")
SEED = 0


@dataclass(frozen=True)
class Part:
    """The rows of a source's `split` whose prompt falls between `low` and `high`, shares of 1.

    Where a prompt falls is a hash of its text and of `SEED`: the same on every machine, whatever the order of the
    rows, so that rows with one prompt stay on one side of every cut. A share is met on average, not to the row.

    >>> [Part("train", 0, 0.5).takes(prompt) for prompt in ("2 + 2 =", "2 + 3 =", "2 + 2 =")]
    [False, True, False]
    """

    split: str
    low: float = 0.0
    high: float = 1.0

    @property
    def share(self) -> float:
        """The share of the source's split, 1 for all of it."""
        return self.high - self.low

    def takes(self, prompt: str) -> bool:
        """Tell whether the row with this prompt belongs here."""
        return self.share == 1 or self.low <= _place(prompt) < self.high


def cut(split: str, **shares: float) -> dict[str, Part]:
    """Cut one split of a source into several of a task, by their shares.

    >>> cut("dev", validation=0.5, test=0.5)["test"]
    Part(split='dev', low=0.5, high=1.0)
    """
    parts, low = {}, 0.0
    for name, share in shares.items():
        high = round(low + share, 9)  # sums of decimals such as 0.8 + 0.1 + 0.1 must meet 1
        parts[name] = Part(split, low, high)
        low = high
    return parts


def _place(prompt: str) -> float:
    return int.from_bytes(sha256(f"{SEED} {prompt}".encode()).digest()[:4], "big") / 2**32  # exact in a float
