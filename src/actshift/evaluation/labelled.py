"""Which evaluation rows with labels ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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


CLASS, TAG = "class", "tag"
NOT_READ = ""
"""What is predicted for a word that no token begins."""


def classify(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, batch_size: int = 16, show_progress: bool = False
) -> EvalReport:
    """Predict the class of every text (and text_pair), and count those that match its label.

    What is longer than the model's context is cut there, with a warning.

    Raises ActshiftError for a model without such a head, and for a label that it does not know.
    """
    labels = _labels(model, "SEQ_CLS", "Rows with a label")
    examples = encode(rows, tokenizer, context_length(model.config, tokenizer), labels).examples
    best, seconds = _best(model, tokenizer, examples, batch_size, show_progress)
    predictions = (
        Prediction(_text(row), row["label"], labels[one], row["label"] == labels[one])
        for row, one in zip(_dicts(rows), best, strict=True)
    )
    return EvalReport(tuple(predictions), seconds, CLASS)


def tag(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, batch_size: int = 16, show_progress: bool = False
) -> EvalReport:
    """Predict the tag of every word at its first token, and count those that match; a word is a prediction.

    A word behind the end of the model's context counts as wrong.

    Raises ActshiftError for a model without such a head, and for a tag that it does not know.
    """
    labels = _labels(model, "TOKEN_CLS", "Words with tags")
    encoded = encode_words(rows["tokens"], tokenizer, context_length(model.config, tokenizer))
    for number, tags in enumerate(rows["tags"], start=1):
        for name in tags:
            label_index(name, labels, number)
    best, seconds = _best(model, tokenizer, [example for example, _ in encoded], batch_size, show_progress)
    predictions = []
    for row, (_, places), chosen in zip(_dicts(rows), encoded, best, strict=True):
        found = {word: labels[one] for word, one in zip(places, chosen, strict=False) if word is not None}
        for word, (text, wanted) in enumerate(zip(row["tokens"], row["tags"], strict=True)):
            name = found.get(word, NOT_READ)
            predictions.append(Prediction(text, wanted, name, name == wanted))
    return EvalReport(tuple(predictions), seconds, TAG)


def _labels(model: Any, head: str, what: str) -> tuple[str, ...]:
    if (own := head_of(model)) != head:
        raise ActshiftError(
            f"{what} need a model with the head {head}, and this one has {own or 'another'}; train one on such rows "
            "with 'actshift train'."
        )
    return labels_of(model.config)


def _best(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any], batch_size: int, show_progress: bool
) -> tuple[list[Any], float]:
    """The index of the likeliest class of each example, or one a token, and the seconds that it took."""
    start, best = time.perf_counter(), [None] * len(examples)
    for numbers, _, output in forward(model, tokenizer, examples, batch_size, show_progress):
        for number, one in zip(numbers, output.logits.argmax(-1).tolist(), strict=True):
            best[number] = one
    return best, time.perf_counter() - start


def _text(row: Mapping[str, Any]) -> str:
    return "\n".join(row[name] for name in ("text", "text_pair") if name in row)


def _dicts(rows: Dataset) -> list[dict[str, Any]]:
    return rows.to_list()


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


_BY_COLUMNS = dict(zip(LABELLED, (classify, tag, retrieve), strict=True))


def is_labelled(rows: Dataset | Sequence[Mapping[str, Any]]) -> bool:
    """Tell rows for an encoder from those that a language model completes.

    >>> is_labelled([{"text": "so good", "label": "1"}]), is_labelled([{"prompt": "so", "completion": " good"}])
    (True, False)
    """
    return bool(_columns(rows))


def evaluate_labelled(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | Sequence[Mapping[str, Any]],
    batch_size: int = 16,
    show_progress: bool = False,
) -> EvalReport:
    """Score a model on rows with labels: classes of texts, tags of words, or the partner of each text.

    Raises ActshiftError for rows that are not of one kind, and what their evaluation raises.
    """
    judge = _BY_COLUMNS[_columns(rows) or ()]
    return judge(model, tokenizer, checked_rows(rows, "What was given", LABELLED), batch_size, show_progress)


def _columns(rows: Any) -> tuple[str, ...] | None:
    found = rows.column_names if hasattr(rows, "column_names") else list(rows[0]) if len(rows) else ()
    return columns_of(found, LABELLED)
