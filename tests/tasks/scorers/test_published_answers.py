"""All published gold answers score as right, alone and inside the texts that models learn."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from actshift.tasks.scorers import get_scorer
from tests.tasks.published import PUBLISHED, needs_published

pytestmark = needs_published


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(PUBLISHED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.mark.parametrize("name", ["gsm8k/test", pytest.param("gsm8k/train", marks=pytest.mark.slow)])
def test_every_gsm8k_answer_scores_and_none_with_an_extra_digit_does(name: str) -> None:
    number = get_scorer("number")
    for row in rows(name):
        final, text = row["answer"]["final"], row["answer"]["text"]
        gold = {"answer": final.replace(",", "")}
        for prediction in (text, final, f"The answer is ${final}."):
            assert number(prediction, gold), row["id"]
        assert not number(f"{text}1", gold), row["id"]


@pytest.mark.parametrize("name", ["mawps/train", "mawps/dev", "mawps/test"])
def test_every_mawps_answer_scores(name: str) -> None:
    number = get_scorer("number")
    for row in rows(name):
        final, equation = str(row["answer"]["final"]), row["answer"]["equation"]
        for prediction in (final, f"{equation} = {final}", f"{float(final):.15g} apples"):
            assert number(prediction, {"answer": final}), row["id"]
        assert number(final, {"answer": f"{float(final):.6f}"}), row["id"]  # the format of the task


@pytest.mark.parametrize(
    "name", ["aqua_rat/dev", "aqua_rat/test", pytest.param("aqua_rat/train_flan_cot", marks=pytest.mark.slow)]
)
def test_every_aqua_answer_scores_and_no_other_letter_does(name: str) -> None:
    choice = get_scorer("choice")
    for row in rows(name):
        choices = [re.sub(r"^\s*\(?[A-E]\)\s*", "", option) for option in row["prompt_fields"]["options"]]
        final, rationale = row["answer"]["final"], row["answer"]["rationale"]
        gold = {"answer": final, "choices": choices}
        answers = (final, f"({final})", f"{final}) {choices['ABCDE'.index(final)]}", f"The answer is {final}.")
        for prediction in (*answers, f"{rationale}\nAnswer: {final}"):
            assert choice(prediction, gold), (row["id"], prediction)
        for other in {*"ABCDE"} - {final}:
            assert not choice(f"{rationale}\nAnswer: {other}", gold), row["id"]
