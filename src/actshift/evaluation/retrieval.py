"""Score an encoder's vectors: is each text's own partner the nearest one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.encoding import encode, sides, unit_means
from actshift.errors import ActshiftError
from actshift.evaluation.forward import forward
from actshift.evaluation.report import EvalReport, Prediction
from actshift.head import head_of
from actshift.loading import context_length

if TYPE_CHECKING:
    from datasets import Dataset

NEAREST = "nearest partner"


def retrieve(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, batch_size: int = 16, show_progress: bool = False
) -> EvalReport:
    """Find the nearest `text_pair` of all rows for each `text`, by the cosine of their mean-pooled vectors.

    Right is the row's own partner, or one of the same words. With `n` rows, chance is 1/n.

    Raises ActshiftError for a model with another head than FEATURE_EXTRACTION.
    """
    if (own := head_of(model)) != "FEATURE_EXTRACTION":
        raise ActshiftError(
            f"Pairs of texts without a label need a model without a head, and this one's is {own or 'another'}; train "
            "on such rows with 'actshift train'."
        )
    pairs = encode(rows, tokenizer, context_length(model.config, tokenizer)).examples
    start = time.perf_counter()
    texts, partners = (
        _vectors(model, tokenizer, examples, batch_size, show_progress)
        for examples in zip(*map(sides, pairs), strict=True)
    )
    nearest = (texts @ partners.T).argmax(-1).tolist()
    seconds = time.perf_counter() - start
    named = rows["text_pair"]
    predictions = (
        Prediction(text, own, named[best], named[best] == own)
        for text, own, best in zip(rows["text"], named, nearest, strict=True)
    )
    return EvalReport(tuple(predictions), seconds, NEAREST)


def _vectors(model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any], *how: Any) -> Tensor:
    """The vector of each example `[rows, d]`, on the CPU in float32."""
    found: list[Any] = [None] * len(examples)
    for numbers, inputs, output in forward(model, tokenizer, examples, *how):
        vectors = unit_means(output.last_hidden_state.float(), inputs["attention_mask"]).cpu()
        for number, vector in zip(numbers, vectors, strict=True):
            found[number] = vector
    return torch.stack(found)
