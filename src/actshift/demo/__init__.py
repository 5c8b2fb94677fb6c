"""The offline demo: a small bundled base model, the task that it learns, and the methods to compare on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_DIR = Path(__file__).parent / "base"  # the bundled base model, in the format of transformers


def load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the bundled base model in float32 and its tokenizer; needs no network.

    >>> model, tokenizer = load_base()
    >>> model.num_parameters()
    1298432
    """
    from actshift.loading import load_model

    return load_model(BASE_DIR, dtype="float32")


@dataclass(frozen=True)
class DemoMethod:
    """A way to adapt the bundled model.

    The rates were chosen from two or three each on the validation split; post-attention and the vector are untuned.
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
    """Raise ActshiftError unless `names` are different methods of the demo."""
    allowed = ", ".join(METHODS)
    for name in names:
        if name not in METHODS:
            raise ActshiftError(f"The demo has no method {name!r}{did_you_mean(name, METHODS)}. Choose from {allowed}.")
    if not names or len(set(names)) < len(names):
        raise ActshiftError(f"Name each method once, and at least one of {allowed}. Got {list(names)}.")
