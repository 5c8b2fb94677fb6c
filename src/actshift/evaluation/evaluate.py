"""Score a model on rows: greedy completions by exact match or a scorer, and labels by prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedTokenizerBase

from actshift.data import check_rows, is_chat, to_prompt_completion
from actshift.errors import ActshiftError
from actshift.evaluation.generation import generate_completions
from actshift.evaluation.labelled import evaluate_labelled, labelled_columns
from actshift.evaluation.report import EXACT_MATCH, EvalReport, Prediction

if TYPE_CHECKING:
    from datasets import Dataset

    from actshift.tasks import Scorer


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | Sequence[Mapping[str, Any]],
    max_new_tokens: int = 64,
    batch_size: int = 16,
    show_progress: bool = False,
    *,
    scorer: Scorer | None = None,
    long_prompts: str = "refuse",
) -> EvalReport:
    """Complete the prompt of every row greedily, and count the correct completions.

    Rows with labels or tags are classified instead, and pairs of texts are matched by their vectors; the model needs
    the corresponding head.

    Args:
        rows: Rows with `prompt` and `completion`, or with `messages`, whose last turn is the completion.
        scorer: Judges a completion by the row's `answer`, which is extracted from its `completion` if absent. None
            for exact match.

    Raises:
        ActshiftError: `rows` is empty, a row lacks a prompt, completion or answer, or `generate_completions` fails.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> evaluate(model, tokenizer, [{"prompt": "MAX 3 7 =", "completion": " 7"}], max_new_tokens=4).total
        1
    """
    if labelled_columns(rows):
        return evaluate_labelled(model, tokenizer, rows, batch_size, show_progress)
    if not hasattr(rows, "column_names") and len(rows) and any(isinstance(value, list) for value in rows[0].values()):
        rows = check_rows(rows, "what was given")
    if rendered := hasattr(rows, "column_names") and is_chat(cast("Dataset", rows)):
        rows = to_prompt_completion(cast("Dataset", rows), tokenizer)
    checked = [_check_row(row, number, tokenizer, scorer) for number, row in enumerate(rows, start=1)]
    if not checked:
        raise ActshiftError("There are no rows to evaluate. Give at least one with prompt and completion.")
    start, prompts = time.perf_counter(), [row["prompt"] for row in checked]
    how: Any = {"long_prompts": long_prompts, "add_special_tokens": not rendered, "show_progress": show_progress}
    completions = generate_completions(model, tokenizer, prompts, max_new_tokens, batch_size, **how)
    seconds = time.perf_counter() - start
    predictions = tuple(_score(row, completion, scorer) for row, completion in zip(checked, completions, strict=True))
    return EvalReport(predictions, seconds, scorer.name if scorer else EXACT_MATCH)


def exact_match(prediction: str, reference: str) -> bool:
    """Return whether two completions are equal, ignoring white space at both ends.

    >>> exact_match(" 42", "42\\n"), exact_match("42 apples", "42")
    (True, False)
    """
    return prediction.strip() == reference.strip()


def _check_row(row: Any, number: int, tokenizer: PreTrainedTokenizerBase, scorer: Scorer | None) -> dict[str, Any]:
    """Return the row with its completion stripped of special tokens, its original as `reference`, and its answer."""
    for column in ("prompt", "completion"):
        if not isinstance(row.get(column), str):
            problem = f"Row {number} has no {column} but {', '.join(row)}"
            raise ActshiftError(f"{problem}. Scoring needs prompt and completion, or messages.")
    completion = row["completion"]
    for token in tokenizer.all_special_tokens:  # such as Gemma's <end_of_turn>; decoded completions have none
        completion = completion.replace(token, "")
    checked = {**row, "reference": row["completion"], "completion": completion}
    if scorer and checked.get("answer") is None:
        checked["answer"] = scorer.extract(completion, checked)
        if checked["answer"] is None:
            problem = f"Row {number} has no answer, and the scorer {scorer.name!r} finds none in its completion"
            raise ActshiftError(f"{problem} {completion!r:.60}. Add a column answer.")
    if scorer:
        try:
            scorer("", checked)  # reject an unusable answer now, not after hours of generation
        except ActshiftError as error:
            raise ActshiftError(f"Row {number}: {error}") from error
    return checked


def _score(row: Mapping[str, Any], prediction: str, scorer: Scorer | None) -> Prediction:
    texts = (row["prompt"], row["reference"], prediction)
    if scorer is None:
        return Prediction(*texts, exact_match(prediction, row["completion"]))
    return Prediction(*texts, scorer(prediction, row), row["answer"], scorer.extract(prediction, row))
