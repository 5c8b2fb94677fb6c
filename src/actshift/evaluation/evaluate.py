"""Score greedy completions by exact match."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedTokenizerBase

from actshift.data import to_prompt_completion
from actshift.errors import ActshiftError
from actshift.evaluation.generation import generate_completions
from actshift.evaluation.report import EvalReport, Prediction

if TYPE_CHECKING:
    from datasets import Dataset


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
) -> EvalReport:
    """Complete the prompt of every row greedily, and count the completions that match the row's exactly.

    `rows` have `prompt` and `completion`; those of a dataset (`load_rows`) may have `messages`, whose last
    turn is then the completion.

    Raises:
        ActshiftError: no rows, a row without a prompt or completion, or what `generate_completions` refuses.

    Example:
        >>> from actshift.demo import load_base
        >>> model, tokenizer = load_base()
        >>> evaluate(model, tokenizer, [{"prompt": "MAX 3 7 =", "completion": " 7"}], max_new_tokens=4).total
        1
    """
    if hasattr(rows, "column_names"):
        rows = to_prompt_completion(cast("Dataset", rows), tokenizer)
    checked = [_pair(cast(Mapping[str, Any], row), number) for number, row in enumerate(rows, start=1)]
    if not checked:
        raise ActshiftError("There are no rows to evaluate; give at least one with prompt and completion.")
    prompts, references = zip(*checked, strict=True)
    start = time.perf_counter()
    completions = generate_completions(
        model, tokenizer, prompts, max_new_tokens, batch_size, show_progress=show_progress
    )
    seconds = time.perf_counter() - start
    scored = (
        Prediction(prompt, reference, completion, exact_match(completion, _plain(reference, tokenizer)))
        for prompt, reference, completion in zip(prompts, references, completions, strict=True)
    )
    return EvalReport(tuple(scored), seconds)


def _plain(reference: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A chat turn may end in a special token (Gemma's <end_of_turn>), which decoded completions do not show."""
    for token in tokenizer.all_special_tokens:
        reference = reference.replace(token, "")
    return reference


def _pair(row: Mapping[str, Any], number: int) -> tuple[str, str]:
    for column in ("prompt", "completion"):
        if not isinstance(row.get(column), str):
            raise ActshiftError(
                f"Row {number} has no {column} but {', '.join(row)}; "
                "exact match needs prompt and completion, or messages."
            )
    return row["prompt"], row["completion"]
