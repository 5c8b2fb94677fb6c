"""Score greedy completions: by exact match, or by the scorer of a task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedTokenizerBase

from actshift.data import to_prompt_completion
from actshift.errors import ActshiftError
from actshift.evaluation.generation import generate_completions
from actshift.evaluation.labelled import evaluate_labelled, is_labelled
from actshift.evaluation.report import EXACT_MATCH, EvalReport, Prediction

if TYPE_CHECKING:
    from datasets import Dataset

    from actshift.tasks import Scorer


def exact_match(prediction: str, reference: str) -> bool:
    """Tell whether two completions are the same, but for white space at their ends.

    >>> exact_match(" 42", "42\\n"), exact_match("42 apples", "42")
    (True, False)
    """
    return prediction.strip() == reference.strip()


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
    """Complete the prompt of every row greedily, and count the completions that are right.

    `rows` have `prompt` and `completion`; those of a dataset (`load_rows`, `Task.load`) may have `messages`, whose
    last turn is then the completion. Right is what matches the completion exactly, or what `scorer` says of it and
    the row: of `answer`, and `choices` where there are some. A row without an answer has that of its completion.
    `long_prompts` is as in `generate_completions`. Rows with labels or tags are classified, and pairs of texts are told
    by their vectors, where the model has the head for it.

    Raises:
        ActshiftError: no rows, a row without a prompt, completion or answer, or what `generate_completions` refuses.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> evaluate(model, tokenizer, [{"prompt": "MAX 3 7 =", "completion": " 7"}], max_new_tokens=4).total
        1
    """
    if is_labelled(rows):
        return evaluate_labelled(model, tokenizer, rows, batch_size, show_progress)
    rendered = "messages" in getattr(rows, "column_names", ())
    if rendered:
        rows = to_prompt_completion(cast("Dataset", rows), tokenizer)
    checked = [_checked(row, number, tokenizer, scorer) for number, row in enumerate(rows, start=1)]
    if not checked:
        raise ActshiftError("There are no rows to evaluate; give at least one with prompt and completion.")
    start = time.perf_counter()
    completions = generate_completions(
        model,
        tokenizer,
        [row["prompt"] for row in checked],
        max_new_tokens,
        batch_size,
        long_prompts=long_prompts,
        add_special_tokens=not rendered,
        show_progress=show_progress,
    )
    seconds = time.perf_counter() - start
    scored = tuple(_scored(row, completion, scorer) for row, completion in zip(checked, completions, strict=True))
    return EvalReport(scored, seconds, scorer.name if scorer else EXACT_MATCH)


def _checked(row: Any, number: int, tokenizer: PreTrainedTokenizerBase, scorer: Scorer | None) -> dict[str, Any]:
    for column in ("prompt", "completion"):
        if not isinstance(row.get(column), str):
            raise ActshiftError(
                f"Row {number} has no {column} but {', '.join(row)}; scoring needs prompt and completion, or messages."
            )
    plain = {**row, "reference": row["completion"], "completion": _plain(row["completion"], tokenizer)}
    if scorer and plain.get("answer") is None:
        plain["answer"] = scorer.extract(plain["completion"], plain)
        if plain["answer"] is None:
            raise ActshiftError(
                f"Row {number} has no answer, and the scorer {scorer.name!r} finds none in its completion "
                f"{plain['completion']!r:.60}; add a column answer."
            )
    if scorer:
        try:
            scorer("", plain)  # an answer that it cannot judge by is told now, not after hours
        except ActshiftError as error:
            raise ActshiftError(f"Row {number}: {error}") from error
    return plain


def _scored(row: Mapping[str, Any], prediction: str, scorer: Scorer | None) -> Prediction:
    told = (row["prompt"], row["reference"], prediction)
    if scorer is None:
        return Prediction(*told, exact_match(prediction, row["completion"]))
    return Prediction(*told, scorer(prediction, row), row["answer"], scorer.extract(prediction, row))


def _plain(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A chat turn may end in a special token (Gemma's <end_of_turn>), which decoded completions do not show."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return text
