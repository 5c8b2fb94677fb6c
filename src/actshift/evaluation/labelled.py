"""Score an encoder: classes of texts, tags of words, and retrieval of the partner of each text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from actshift.data import LABELLED, check_rows
from actshift.data.encode import encode, encode_words, label_index
from actshift.data.pairs import normalized_means, split_pair
from actshift.data.rows import find_columns
from actshift.errors import ActshiftError
from actshift.evaluation.generation import forward
from actshift.evaluation.report import EvalReport, Prediction
from actshift.loading import context_length
from actshift.model_head import head_of, labels_of

if TYPE_CHECKING:
    from datasets import Dataset

    Run = Callable[[Sequence[Any], Callable[[Mapping[str, Tensor], Any], Iterable[Any]]], list[Any]]

CLASS, TAG, NEAREST = "class", "tag", "nearest partner"  # the names of the scorers in an `EvalReport`


def labelled_columns(rows: Any) -> tuple[str, ...] | None:
    """Return the columns that make rows fit an encoder, an entry of `LABELLED`, or None for a language model's rows.

    >>> labelled_columns([{"text": "so good", "label": "1"}]), labelled_columns([{"prompt": "so", "completion": "!"}])
    (('text', 'label'), None)
    """
    columns = rows.column_names if hasattr(rows, "column_names") else list(rows[0]) if len(rows) else ()
    return find_columns(columns, LABELLED)


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
    score = dict(zip(LABELLED, (_classify, _tag, _retrieve), strict=True))[labelled_columns(rows) or ()]
    run = partial(forward, model, tokenizer, batch_size=batch_size, show_progress=show_progress)
    return score(model, tokenizer, check_rows(rows, "What was given", LABELLED), run)


def _classify(model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, run: Run) -> EvalReport:
    """Predict the class of every `text` (with its `text_pair`), and compare it to the row's `label`."""
    _check_head(model, "SEQ_CLS", "Rows with a label")
    labels = labels_of(model.config)
    examples = encode(rows, tokenizer, context_length(model.config, tokenizer), labels).examples
    start = time.perf_counter()
    classes = run(examples, _best_classes)
    seconds = time.perf_counter() - start
    texts = ("\n".join(row[name] for name in ("text", "text_pair") if name in row) for row in rows.to_list())
    triples = zip(texts, rows["label"], (labels[index] for index in classes), strict=True)
    return EvalReport(tuple(Prediction(*triple, triple[1] == triple[2]) for triple in triples), seconds, CLASS)


def _tag(model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, run: Run) -> EvalReport:
    """Predict the tag of every word at its first token; a word beyond the context has no tag, and counts as wrong."""
    _check_head(model, "TOKEN_CLS", "Words with tags")
    labels = labels_of(model.config)
    encoded = encode_words(rows["tokens"], tokenizer, context_length(model.config, tokenizer))
    for number, tags in enumerate(rows["tags"], start=1):
        for name in tags:
            label_index(name, labels, number)
    start = time.perf_counter()
    classes = run([example for example, _ in encoded], _best_classes)
    seconds = time.perf_counter() - start
    predictions: list[Prediction] = []
    for row, (_, words), indices in zip(rows.to_list(), encoded, classes, strict=True):
        tags = {word: labels[index] for word, index in zip(words, indices, strict=False) if word is not None}
        for word, (text, reference) in enumerate(zip(row["tokens"], row["tags"], strict=True)):
            name = tags.get(word, "")
            predictions.append(Prediction(text, reference, name, name == reference))
    return EvalReport(tuple(predictions), seconds, TAG)


def _retrieve(model: Any, tokenizer: PreTrainedTokenizerBase, rows: Dataset, run: Run) -> EvalReport:
    """Find the nearest `text_pair` of each `text` by the cosine of mean-pooled states; equal texts count as right."""
    _check_head(model, "FEATURE_EXTRACTION", "Pairs of texts without a label")
    pairs = encode(rows, tokenizer, context_length(model.config, tokenizer)).examples
    start = time.perf_counter()
    halves = zip(*map(split_pair, pairs), strict=True)
    texts, partners = (torch.stack(run(examples, _embeddings)) for examples in halves)
    nearest = (texts @ partners.T).argmax(-1).tolist()
    seconds = time.perf_counter() - start
    partner_texts = rows["text_pair"]
    predictions = (
        Prediction(text, own, partner_texts[index], partner_texts[index] == own)
        for text, own, index in zip(rows["text"], partner_texts, nearest, strict=True)
    )
    return EvalReport(tuple(predictions), seconds, NEAREST)


def _check_head(model: Any, head: str, rows: str) -> None:
    if (own := head_of(model)) != head:
        need = "without a head" if head == "FEATURE_EXTRACTION" else f"with the head {head}"
        problem = f"{rows} need a model {need}, and this one has {own or 'another'}"
        raise ActshiftError(f"{problem}. Train one on such rows with 'actshift train'.")


def _best_classes(_: Mapping[str, Tensor], output: Any) -> list[Any]:
    """Return the index of the most likely class of each example, or of each of its tokens."""
    return output.logits.argmax(-1).tolist()


def _embeddings(inputs: Mapping[str, Tensor], output: Any) -> Tensor:
    """Return the normalised mean hidden state of each example, `[batch, d]`, float32 on the CPU."""
    return normalized_means(output.last_hidden_state.float(), inputs["attention_mask"]).cpu()
