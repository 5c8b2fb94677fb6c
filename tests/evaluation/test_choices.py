"""Choices by log-probability, and completions that end early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset

from actshift.evaluation import evaluate, generate_completions
from actshift.evaluation.choices import best_choices, choice_completions
from actshift.evaluation.evaluate import EXTRA_TOKENS
from actshift.sites import Positions
from actshift.tuner.prompt_scope import prompt_lengths
from tests.contract.cases import fresh_model, randomise, steered_model
from tests.tiny import WORDS, word_tokenizer

TOKENIZER = word_tokenizer()
PROMPTS = [" ".join(WORDS[start : start + length]) for start, length in ((0, 2), (9, 7), (30, 4), (3, 1))]
CHOICES = ["w1", "w1 w2", "w1 w2 w5", "w7 w8", "w9"]


def expected_choice(model: Any, prompt: str, positions: bool = False) -> str:
    """Return the best choice by one forward pass over each whole text, without padding or shared passes."""
    scores: dict[str, float] = {}
    start = len(TOKENIZER(prompt)["input_ids"])
    for choice in CHOICES:
        ids = torch.tensor([TOKENIZER(f"{prompt} {choice}")["input_ids"]])
        with torch.no_grad():
            if positions:
                with prompt_lengths(model, [start]):
                    logits = model(ids).logits[0]
            else:
                logits = model(ids).logits[0]
        steps = range(start, ids.shape[1])
        scores[choice] = sum(float(logits[step - 1].log_softmax(-1)[ids[0, step]]) for step in steps)
    return max(scores, key=lambda choice: scores[choice])


def rows_of(prompts: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "completion": " w9", "choices": CHOICES} for prompt in prompts]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "bloom"])
def test_the_most_probable_choice_equals_separate_forward_passes(name: str) -> None:
    model = fresh_model(name)
    expected = [expected_choice(model, prompt) for prompt in PROMPTS]
    for batch_size in (1, 3, 16):
        assert best_choices(model, TOKENIZER, rows_of(PROMPTS), batch_size) == expected


def test_an_adapter_of_the_prompt_steers_only_the_prompt() -> None:
    model = steered_model("llama", "linear", "post_block", positions=Positions.last_token())
    randomise(model, scale=2.0)
    expected = [expected_choice(model, prompt, positions=True) for prompt in PROMPTS]
    assert best_choices(model, TOKENIZER, rows_of(PROMPTS)) == expected


@pytest.mark.parametrize(
    ("row", "completions"),
    [
        ({"completion": " yes\n", "choices": ["no", "yes"]}, {"no": " no\n", "yes": " yes\n"}),
        ({"completion": "B", "choices": ["oak", "pear", "elm"]}, {"A": "A", "B": "B", "C": "C"}),
        ({"completion": " 3", "choices": ["1", "3"]}, {"1": " 1", "3": " 3"}),
        ({"completion": " D", "choices": ["oak", "pear"]}, None),
        ({"completion": " so B", "choices": ["oak", "pear"]}, None),
        ({"completion": " yes", "choices": ["yes"]}, None),
        ({"completion": " yes"}, None),
    ],
)
def test_completions_of_choices(row: dict[str, Any], completions: dict[str, str] | None) -> None:
    assert choice_completions(row) == completions


def test_the_report_has_both_accuracies() -> None:
    model = fresh_model("llama")
    rows = rows_of(PROMPTS)
    for row, choice in zip(rows[:3], best_choices(model, TOKENIZER, rows) or [], strict=False):
        row["completion"] = f" {choice}"
    report = evaluate(model, TOKENIZER, Dataset.from_list(rows))
    assert report.choice_accuracy is not None and report.choice_accuracy >= 0.75
    assert f"choices   {100 * report.choice_accuracy:.1f} %" in str(report)
    assert report.to_dict()["choice_accuracy"] == report.choice_accuracy
    assert evaluate(model, TOKENIZER, [{"prompt": "w1", "completion": " w2"}]).choice_accuracy is None


def test_the_limit_follows_from_the_longest_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    model, limits = fresh_model("llama"), []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda *args, **kwargs: limits.append(kwargs) or generate(*args, **kwargs))
    evaluate(model, TOKENIZER, [{"prompt": "w1", "completion": " w2 w3 w4"}, {"prompt": "w1", "completion": " w5"}])
    assert limits[0]["generation_config"].max_new_tokens == 3 + EXTRA_TOKENS


def test_a_completion_ends_once_it_differs_from_its_reference() -> None:
    model = fresh_model("llama")
    full = generate_completions(model, TOKENIZER, PROMPTS, max_new_tokens=8)
    words = [text.split() for text in full]
    references = [full[0], " ".join([*words[1][:3], "w0", "w0"]), "w0", full[3]]
    ended = generate_completions(model, TOKENIZER, PROMPTS, max_new_tokens=8, references=references)
    assert (ended[0], ended[3]) == (full[0], full[3])
    assert ended[1].split() == words[1][: len(ended[1].split())]
    assert len(ended[1].split()) == next(n for n, word in enumerate(words[1]) if word != references[1].split()[n]) + 1
    assert ended[2].split() == words[2][:1]
