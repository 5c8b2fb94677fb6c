"""Score an encoder: classes of texts, tags of words, and retrieval of the partner of each text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.data import LABELLED, checked_rows
from actshift.data.encode import encode, encode_words, label_index
from actshift.data.pairs import sides, unit_means
from actshift.data.rows import columns_of
from actshift.errors import ActshiftError
from actshift.evaluation.generation import forward
from actshift.evaluation.report import EvalReport, Prediction
from actshift.loading import context_length
from actshift.model_head import head_of, labels_of

if TYPE_CHECKING:
    from datasets import Dataset

CLASS, TAG, NEAREST = "class", "tag", "nearest partner"
"""The names of the scorers in an `EvalReport`."""
NO_PREDICTION = ""
"""The prediction for a word beyond the model's context."""


def is_labelled(rows: Dataset | Sequence[Mapping[str, Any]]) -> bool:
    """Return whether rows are for an encoder: they have a label, tags, or a pair of texts.

    >>> is_labelled([{"text": "so good", "label": "1"}]), is_labelled([{"prompt": "so", "completion": " good"}])
    (True, False)
    """
    return _labelled_columns(rows) is not None


def evaluate_labelled(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | Sequence[Mapping[str, Any]],
    batch_size: int = 16,
    show_progress: bool = False,
) -> EvalReport:
    """Score a model on rows with a label, on rows with tags, or on pairs of texts.

    Texts that exceed the model's context are truncated, with a warning.

    Raises:
        ActshiftError: The rows have different columns, the model's head does not fit them, or the model does not know a
            label or tag.
    """
    scorers = dict(zip(LABELLED, (_classify, _tag, _retrieve), strict=True))
    score = scorers[_labelled_columns(rows) or ()]
    encoder = _Encoder(model, tokenizer, batch_size, show_progress)
    return score(encoder, checked_rows(rows, "What was given", LABELLED))


def _labelled_columns(rows: Any) -> tuple[str, ...] | None:
    """Return the entry of LABELLED that the rows match, or None for rows of a language model."""
    columns = rows.column_names if hasattr(rows, "column_names") else list(rows[0]) if len(rows) else ()
    return columns_of(columns, LABELLED)


@dataclass(frozen=True)
class _Encoder:
    """A model with a classifier's head or none, its tokenizer, and how to run it."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    show_progress: bool

    @property
    def context(self) -> int:
        return context_length(self.model.config, self.tokenizer)

    def class_names(self, head: str, rows: str) -> tuple[str, ...]:
        """Return the names of the model's classes; raise ActshiftError if its head is not `head`."""
        if (own := head_of(self.model)) != head:
            raise ActshiftError(
                f"{rows} need a model with the head {head}, and this one has {own or 'another'}. Train one on such "
                "rows with 'actshift train'."
            )
        return labels_of(self.model.config)

    def classes(self, examples: Sequence[Any]) -> tuple[list[Any], float]:
        """Return the index of the most likely class of each example, or one per token, and the seconds taken."""
        start, classes = time.perf_counter(), [None] * len(examples)
        for rows, _, output in self._forward(examples):
            for row, index in zip(rows, output.logits.argmax(-1).tolist(), strict=True):
                classes[row] = index
        return classes, time.perf_counter() - start

    def embed(self, examples: Sequence[Any]) -> Tensor:
        """Return the normalised mean hidden state of each example, `[examples, d]`, float32 on the CPU."""
        embeddings: list[Any] = [None] * len(examples)
        for rows, inputs, output in self._forward(examples):
            vectors = unit_means(output.last_hidden_state.float(), inputs["attention_mask"]).cpu()
            for row, vector in zip(rows, vectors, strict=True):
                embeddings[row] = vector
        return torch.stack(embeddings)

    def _forward(self, examples: Sequence[Any]) -> Iterator[tuple[list[int], Mapping[str, Tensor], Any]]:
        return forward(self.model, self.tokenizer, examples, self.batch_size, self.show_progress)


def _classify(encoder: _Encoder, rows: Dataset) -> EvalReport:
    """Predict the class of every `text` (with its `text_pair`), and compare it to the row's `label`."""
    labels = encoder.class_names("SEQ_CLS", "Rows with a label")
    classes, seconds = encoder.classes(encode(rows, encoder.tokenizer, encoder.context, labels).examples)
    predictions: list[Prediction] = []
    for row, index in zip(rows.to_list(), classes, strict=True):
        text = "\n".join(row[name] for name in ("text", "text_pair") if name in row)
        predictions.append(Prediction(text, row["label"], labels[index], row["label"] == labels[index]))
    return EvalReport(tuple(predictions), seconds, CLASS)


def _tag(encoder: _Encoder, rows: Dataset) -> EvalReport:
    """Predict the tag of every word at its first token; a word beyond the context counts as wrong."""
    labels = encoder.class_names("TOKEN_CLS", "Words with tags")
    encoded = encode_words(rows["tokens"], encoder.tokenizer, encoder.context)
    for number, tags in enumerate(rows["tags"], start=1):
        for name in tags:
            label_index(name, labels, number)
    classes, seconds = encoder.classes([example for example, _ in encoded])
    predictions: list[Prediction] = []
    for row, (_, words), indices in zip(rows.to_list(), encoded, classes, strict=True):
        tags = {word: labels[index] for word, index in zip(words, indices, strict=False) if word is not None}
        for word, (text, reference) in enumerate(zip(row["tokens"], row["tags"], strict=True)):
            name = tags.get(word, NO_PREDICTION)
            predictions.append(Prediction(text, reference, name, name == reference))
    return EvalReport(tuple(predictions), seconds, TAG)


def _retrieve(encoder: _Encoder, rows: Dataset) -> EvalReport:
    """Find the nearest `text_pair` for each `text`, by the cosine of mean-pooled hidden states.

    A prediction is correct if it is the row's own partner, or has the same words. Chance is 1 over the number of rows.
    """
    if (head := head_of(encoder.model)) != "FEATURE_EXTRACTION":
        raise ActshiftError(
            f"Pairs of texts without a label need a model without a head, and this one's is {head or 'another'}. "
            "Train one on such rows with 'actshift train'."
        )
    pairs = encode(rows, encoder.tokenizer, encoder.context).examples
    start = time.perf_counter()
    texts, partners = (encoder.embed(examples) for examples in zip(*map(sides, pairs), strict=True))
    nearest = (texts @ partners.T).argmax(-1).tolist()
    seconds = time.perf_counter() - start
    partner_texts = rows["text_pair"]
    predictions = (
        Prediction(text, own, partner_texts[index], partner_texts[index] == own)
        for text, own, index in zip(rows["text"], partner_texts, nearest, strict=True)
    )
    return EvalReport(tuple(predictions), seconds, NEAREST)
