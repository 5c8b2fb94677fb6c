"""The ways to adapt the bundled model that the demo can set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actshift.errors import ActshiftError, did_you_mean


@dataclass(frozen=True)
class DemoMethod:
    """One way to adapt the model, and its peak learning rate.

    Post-block, post-MLP and full fine-tuning had theirs chosen on the validation split, from two or three each;
    those of post-attention and the vector are untuned guesses.
    """

    label: str
    learning_rate: float
    site: str | None = None  # None trains every weight of the model
    vector: bool = False


METHODS = {
    "post_block": DemoMethod("post-block r=8", 1e-2, "post_block"),
    "post_mlp": DemoMethod("post-MLP r=8", 1e-2, "post_mlp"),
    "post_attention": DemoMethod("post-attention r=8", 1e-2, "post_attention"),
    "vector": DemoMethod("post-block vector", 5e-3, "post_block", vector=True),
    "full": DemoMethod("full fine-tuning", 3e-4),
}
DEFAULT = ("post_block", "full")


def check_methods(names: Sequence[str]) -> None:
    """Raise ActshiftError unless `names` are methods, each once.

    >>> check_methods(["post_block", "full"])
    """
    for name in names:
        if name not in METHODS:
            raise ActshiftError(
                f"the demo has no method {name!r}{did_you_mean(name, METHODS)}; it has {', '.join(METHODS)}."
            )
    if not names or len(set(names)) < len(names):
        raise ActshiftError(f"name each method once, at least one of {', '.join(METHODS)}; got {list(names)}.")
