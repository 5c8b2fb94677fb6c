"""The methods that the demo can compare on the bundled model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actshift.errors import ActshiftError, did_you_mean


@dataclass(frozen=True)
class DemoMethod:
    """A way to adapt the bundled model, with its peak learning rate.

    The rates of post-block, post-MLP and full fine-tuning were chosen from two or three each on the validation split.
    The rates of post-attention and of the vector are untuned.
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
    """Raise ActshiftError unless `names` are different methods of the demo.

    >>> check_methods(["post_block", "full"])
    """
    allowed = ", ".join(METHODS)
    for name in names:
        if name not in METHODS:
            raise ActshiftError(f"The demo has no method {name!r}{did_you_mean(name, METHODS)}. Choose from {allowed}.")
    if not names or len(set(names)) < len(names):
        raise ActshiftError(f"Name each method once, and at least one of {allowed}. Got {list(names)}.")
