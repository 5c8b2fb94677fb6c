"""Scores of greedy completions."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.evaluation import evaluate, exact_match, generate_completions
from actshift.tasks import Scorer, get_scorer
from tests.contract.cases import fresh_model
from tests.tiny import WORDS, word_tokenizer

TOKENIZER = word_tokenizer()
PROMPTS = [" ".join(WORDS[start : start + length]) for start, length in ((0, 2), (9, 6), (30, 4))]
TURNS = "{% for turn in messages %}{{ turn.role }} {{ turn.content }} {% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}assistant {% endif %}"


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [(" 42\n", "42", True), ("4 2", "42", False), ("", " ", True), ("42 apples", "42", False), ("Yes", "yes", False)],
)
def test_exact_match_ignores_white_space_at_both_ends(prediction: str, reference: str, same: bool) -> None:
    assert exact_match(prediction, reference) is same


def test_exactly_matching_completions_are_counted() -> None:
    model = fresh_model("llama")
    right = generate_completions(model, TOKENIZER, PROMPTS, max_new_tokens=4)
    rows = [
        {"prompt": PROMPTS[0], "completion": f" {right[0]}\n"},
        {"prompt": PROMPTS[1], "completion": right[1] + " w0"},
        {"prompt": PROMPTS[2], "completion": right[2]},
    ]
    report = evaluate(model, TOKENIZER, rows, max_new_tokens=4, batch_size=2)
    assert (report.correct, report.total, report.accuracy) == (2, 3, 2 / 3)
    assert [row.correct for row in report.predictions] == [True, False, True]
    assert report.seconds > 0
    assert str(report).startswith("accuracy  66.7 %\ncorrect   2 of 3\n")
    assert json.loads(json.dumps(report.to_dict()))["predictions"][1]["prediction"] == right[1]


def test_a_special_token_at_the_end_of_a_turn_is_ignored() -> None:
    model = fresh_model("llama")
    answer = generate_completions(model, TOKENIZER, PROMPTS[:1], max_new_tokens=4)[0]
    rows = [{"prompt": PROMPTS[0], "completion": f"{answer}{TOKENIZER.all_special_tokens[0]}\n"}]
    assert evaluate(model, TOKENIZER, rows, max_new_tokens=4).accuracy == 1


def test_the_last_turn_of_messages_is_the_completion() -> None:
    tokenizer, model = word_tokenizer(chat_template=TEMPLATE), fresh_model("llama")
    answer = generate_completions(model, tokenizer, ["user w1 w2 assistant "], max_new_tokens=4)[0]
    turns = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": answer}]
    report = evaluate(model, tokenizer, Dataset.from_list([{"messages": turns}]), max_new_tokens=4)
    assert report.accuracy == 1


def test_a_scorer_uses_the_answer_or_else_the_completion() -> None:
    model = fresh_model("llama")
    completions = generate_completions(model, TOKENIZER, PROMPTS, max_new_tokens=4)
    last = Scorer("last", lambda text, row: text.split()[-1:] == [row["answer"]], lambda text, row: text.split()[-1])
    rows = Dataset.from_list(
        [
            {"prompt": PROMPTS[0], "completion": " w0 w1", "answer": completions[0].split()[-1]},
            {"prompt": PROMPTS[1], "completion": " w0 w1", "answer": "none"},
        ]
    )
    report = evaluate(model, TOKENIZER, rows, max_new_tokens=4, scorer=last)
    assert (report.scorer, [row.correct for row in report.predictions]) == ("last", [True, False])
    assert "\nscorer    last" in str(report)
    assert report.predictions[1].answer == "none" and report.predictions[1].extracted == completions[1].split()[-1]
    report = evaluate(model, TOKENIZER, [{"prompt": PROMPTS[0], "completion": completions[0]}], 4, scorer=last)
    assert report.accuracy == 1 and report.predictions[0].answer == completions[0].split()[-1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completion": " w1 w2"}, "Row 1 has no answer, and the scorer 'number' finds none in its completion"),
        ({"completion": " w1", "answer": "many"}, "Row 1: The scorer number needs an answer that is a number"),
    ],
)
def test_an_unusable_answer_is_refused_before_anything_is_generated(row: dict, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        evaluate(None, TOKENIZER, [{"prompt": "w1", **row}], scorer=get_scorer("number"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"text": "w1"}], "Row 1 has no prompt but text"),
        ([{"prompt": "w1", "completion": "w2"}, {"prompt": "w1", "completion": None}], "Row 2 has no completion"),
    ],
)
def test_missing_rows_and_columns_are_refused(rows: list, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        evaluate(fresh_model("llama"), TOKENIZER, rows)
