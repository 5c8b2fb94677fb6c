"""Which evaluation rows with labels ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from actshift.data import LABELLED, checked_rows
from actshift.data.columns import columns_of
from actshift.evaluation.classification import classify, tag
from actshift.evaluation.report import EvalReport
from actshift.evaluation.retrieval import retrieve

if TYPE_CHECKING:
    from datasets import Dataset

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
