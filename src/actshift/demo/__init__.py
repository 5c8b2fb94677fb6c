"""The offline demo: a small bundled base model, the task that it learns, and the methods to compare on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_DIR: Path = Path(__file__).parent / "base"
"""Folder of the bundled base model, in the format of transformers."""


def load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the bundled base model in float32 and its tokenizer; needs no network.

    >>> model, tokenizer = load_base()
    >>> model.num_parameters()
    1298432
    """
    from actshift.loading import load_model

    return load_model(BASE_DIR, dtype="float32")
