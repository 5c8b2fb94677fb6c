"""The gold answers of the published files all score, as themselves and as the texts that models learn."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from actshift.tasks.scorers import get_scorer
from tests.tasks.shared import SHARED, needs_shared

pytestmark = needs_shared


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(SHARED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.mark.parametrize("name", ["gsm8k/test", pytest.param("gsm8k/train", marks=pytest.mark.slow)])
def test_gsm8k(name: str) -> None:
    number = get_scorer("number")
    for row in rows(name):
        final, text = row["answer"]["final"], row["answer"]["text"]
        gold = {"answer": final.replace(",", "")}
        for prediction in (text, final, f"The answer is ${final}."):
            assert number(prediction, gold), row["id"]
        assert not number(f"{text}1", gold), row["id"]


@pytest.mark.parametrize("name", ["mawps/train", "mawps/dev", "mawps/test"])
def test_mawps(name: str) -> None:
    number = get_scorer("number")
    for row in rows(name):
        final, equation = str(row["answer"]["final"]), row["answer"]["equation"]
        for prediction in (final, f"{equation} = {final}", f"{float(final):.15g} apples"):
            assert number(prediction, {"answer": final}), row["id"]
        assert number(final, {"answer": f"{float(final):.6f}"}), row["id"]  # as the rows of the task have it


@pytest.mark.parametrize(
    "name", ["aqua_rat/dev", "aqua_rat/test", pytest.param("aqua_rat/train_flan_cot", marks=pytest.mark.slow)]
)
def test_aqua(name: str) -> None:
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
