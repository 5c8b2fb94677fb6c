"""Rewards for what has one right answer: that it is right, and that it is given in the right form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks import Scorer
from actshift.training.rewards.reward import Reward

MARK = "####"
"""What announces the answer in GSM8K, and in what is written like it."""


def right_answer(scorer: Scorer) -> Reward:
    """Return the reward of 1 for a completion that `scorer` finds right, by the row's `answer` and `choices`.

    >>> from actshift.tasks import get_scorer
    >>> right_answer(get_scorer("number"))(completions=["So 42.", "41"], answer=["42", "42"])
    [1.0, 0.0]
    """
    return _reward("right_answer", scorer)


def right_form(scorer: Scorer) -> Reward:
    """Return the reward of 1 for a completion that gives an answer, right or wrong, in the form of its row's own.

    That is: where the row's `reference` gives it behind `####`, behind the last such mark and in one line, with
    nothing below; else anywhere that `scorer` reads one answer. [ours]

    Raises ActshiftError for the scorer exact, to which any text is an answer.

    >>> from actshift.tasks import get_scorer
    >>> reward = right_form(get_scorer("number"))
    >>> reward(completions=["1 + 1 = 2\\n#### 2", "It is 2."], reference=["#### 3", "#### 3"])
    [1.0, 0.0]
    """

    if scorer.name == "exact":
        raise ActshiftError("right_form needs a scorer that reads answers, such as number; exact takes any text.")

    def formed(completion: str, row: Mapping[str, Any]) -> bool:
        if MARK not in str(row.get("reference", "")):
            return scorer.extract(completion, row) is not None
        _, marked, end = completion.rpartition(MARK)
        return bool(marked) and "\n" not in end.strip() and scorer.extract(end, row) is not None

    return _reward("right_form", formed)


def _reward(name: str, judge: Callable[[str, Mapping[str, Any]], bool]) -> Reward:
    def rewards(completions: Sequence[str], **columns: Any) -> list[float]:
        rows = _rows(columns, len(completions))
        return [float(judge(completion, row)) for completion, row in zip(completions, rows, strict=True)]

    return Reward(name, rewards)


def _rows(columns: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    return ({name: values[index] for name, values in lists.items()} for index in range(count))
