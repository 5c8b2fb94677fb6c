"""Score a model on rows: greedy completions by exact match or a scorer, and labels by prediction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedTokenizerBase

from actshift.data import check_rows, is_chat, to_prompt_completion
from actshift.errors import ActshiftError
from actshift.evaluation.choices import best_choices
from actshift.evaluation.generation import generate_completions
from actshift.evaluation.labelled import evaluate_labelled, labelled_columns
from actshift.evaluation.report import EXACT_MATCH, EvalReport, Prediction

if TYPE_CHECKING:
    from datasets import Dataset

    from actshift.tasks import Scorer

EXTRA_TOKENS = 16  # of a completion beyond the longest reference: its tokens may be shorter ones, with words around it


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | Sequence[Mapping[str, Any]],
    max_new_tokens: int | None = None,
    batch_size: int = 16,
    show_progress: bool = False,
    *,
    scorer: Scorer | None = None,
    long_prompts: str = "refuse",
) -> EvalReport:
    """Complete the prompt of every row greedily, and count the correct completions.

    If every row has `choices`, the report also has the choice with the highest log-probability (see `best_choices`).
    Without a scorer, a completion ends as soon as it differs from the reference.

    Rows with labels or tags are classified instead, and pairs of texts are matched by their vectors; the model needs
    the corresponding head.

    Args:
        rows: Rows with `prompt` and `completion`, or with `messages`, whose last turn is the completion.
        max_new_tokens: Most tokens of a completion; None for `EXTRA_TOKENS` more than the longest reference.
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
    limit = max_new_tokens or completion_limit(tokenizer, checked)
    how: Any = {"long_prompts": long_prompts, "add_special_tokens": not rendered, "show_progress": show_progress}
    if scorer is None:
        how["references"] = [row["completion"] for row in checked]
    completions = generate_completions(model, tokenizer, prompts, limit, batch_size, **how)
    choices = best_choices(model, tokenizer, checked, batch_size, rendered=rendered, show_progress=show_progress)
    seconds = time.perf_counter() - start
    predictions = map(_score, checked, completions, choices or [None] * len(checked), [scorer] * len(checked))
    return EvalReport(tuple(predictions), seconds, scorer.name if scorer else EXACT_MATCH)


def completion_limit(tokenizer: PreTrainedTokenizerBase, rows: Iterable[Mapping[str, Any]]) -> int:
    """Return `EXTRA_TOKENS` more than the number of tokens in the longest `completion` of the rows."""
    texts = [row["completion"] for row in rows]
    return EXTRA_TOKENS + max(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))


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


def _score(row: Mapping[str, Any], prediction: str, choice: str | None, scorer: Scorer | None) -> Prediction:
    texts = (row["prompt"], row["reference"], prediction)
    chosen: Any = {} if choice is None else {"choice": choice, "choice_correct": choice == row["completion"].strip()}
    if scorer is None:
        return Prediction(*texts, exact_match(prediction, row["completion"]), **chosen)
    extracted = scorer.extract(prediction, row)
    return Prediction(*texts, scorer(prediction, row), row["answer"], extracted, **chosen)
