"""Training targets equal the tokens that generation produces after a prompt, for every tokenizer and template."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from actshift.data.encode import IGNORE_INDEX, encode
from actshift.evaluation import evaluate
from tests.tokenizer_kinds import KINDS, tokenizer_of

ROWS = [
    {"prompt": "Question: Is the sky blue? Answer:", "completion": " yes"},
    {"prompt": "How many apples are there?\n", "completion": "42"},
    {"prompt": "2+2=", "completion": "4"},  # one token for tokenizers that do not split at spaces
    {"prompt": "Answer: ", "completion": "42"},  # as above, with a space at the end of the prompt
    {"prompt": "un", "completion": "able"},
    {"prompt": "to be or not", "completion": " to be\n"},
]
TURNS = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}"
TEMPLATES = {
    "no start token": TURNS + "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "start token": "{{ bos_token }}" + TURNS + "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "different answer start": TURNS + "{% if add_generation_prompt %}<|assistant|>\n1,234 {% endif %}",
    "end token per turn": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}Question: {{ m.content }} Answer:"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}
CHATS = [
    [("user", "Is the sky blue?"), ("assistant", "yes")],
    [("user", "2+2="), ("assistant", "4"), ("user", "40+2="), ("assistant", "42")],
]
MESSAGES = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in CHATS]

kind = pytest.mark.parametrize("kind", KINDS)
template = pytest.mark.parametrize("template", TEMPLATES)
tokenizer_of = cache(tokenizer_of)


class PerfectModel:
    """A stand-in for a trained model: it answers each training prompt with its target and fails on other prompts."""

    training, device = False, "cpu"
    config = type("Config", (), {"get_text_config": lambda self: self, "max_position_embeddings": 512})()
    generation_config = type("Generation", (), {"eos_token_id": None})()
    eval = train = lambda self, mode=True: None
    can_generate = lambda self: True  # noqa: E731

    def __init__(self, examples: list[dict[str, Any]]) -> None:
        self.answers = {}
        for ids, labels in ((example["input_ids"], example["labels"]) for example in examples):
            self.answers[tuple(ids[: labels.count(IGNORE_INDEX)])] = ids[labels.count(IGNORE_INDEX) :]

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> torch.Tensor:
        prompts = [tuple(row[mask.bool()].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True)]
        answers = [self.answers[prompt] for prompt in prompts]
        longest = max(map(len, answers))
        return torch.cat([input_ids, torch.tensor([row + row[-1:] * (longest - len(row)) for row in answers])], dim=1)


def tokens(tokenizer: PreTrainedTokenizerBase, example: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tokens of the prompt, and the tokens of the target without its end token."""
    ids, start = example["input_ids"], example["labels"].count(IGNORE_INDEX)
    assert ids[-1] == tokenizer.eos_token_id
    return tokenizer.convert_ids_to_tokens(ids[:start]), tokenizer.convert_ids_to_tokens(ids[start:-1])


@kind
def test_a_model_that_generates_its_targets_scores_100_percent(kind: str) -> None:
    tokenizer, rows = tokenizer_of(kind), Dataset.from_list(ROWS)
    report = evaluate(PerfectModel(encode(rows, tokenizer, 512).examples), tokenizer, rows, batch_size=4)
    assert report.accuracy == 1, [row for row in report.predictions if not row.correct]


@kind
@template
def test_training_and_generation_use_the_prompt_of_the_chat_template(kind: str, template: str) -> None:
    tokenizer, rows = tokenizer_of(kind, TEMPLATES[template]), Dataset.from_list(MESSAGES)
    examples = encode(rows, tokenizer, 512).examples
    for row, example in zip(MESSAGES, examples, strict=True):
        prompt, _ = tokens(tokenizer, example)
        expected = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
        assert prompt == tokenizer.convert_ids_to_tokens(expected)
    report = evaluate(PerfectModel(examples), tokenizer, rows)
    assert report.accuracy == 1, [row for row in report.predictions if not row.correct]


@kind
@template
def test_the_end_of_a_turn_is_learned_and_the_end_of_text_is_not_repeated(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, TEMPLATES[template])
    for example in encode(Dataset.from_list(MESSAGES), tokenizer, 512).examples:
        _, answer = tokens(tokenizer, example)
        assert "</s>" not in answer
        assert ("<|end|>" in answer) == (template != "end token per turn")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "word_piece"])  # WordPiece does not keep spaces
def test_splitting_a_token_at_the_boundary_adds_no_space(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    for row, example in zip(ROWS, encode(Dataset.from_list(ROWS), tokenizer, 512).examples, strict=True):
        text = str(tokenizer.decode(example["input_ids"], skip_special_tokens=True))
        assert text.lstrip(" ") == row["prompt"] + row["completion"]


def test_a_token_that_the_tokenizer_appends_is_not_part_of_the_prompt() -> None:
    tokenizer = tokenizer_of("word_piece")
    assert tokenizer.convert_ids_to_tokens(tokenizer("tied")["input_ids"]) == ["<s>", "tied", "</s>"]
    [example] = encode(Dataset.from_list([{"prompt": "tied", "completion": " yes"}]), tokenizer, 512).examples
    assert tokens(tokenizer, example) == (["<s>", "tied"], ["yes"])


def test_an_end_token_inside_an_answer_does_not_end_it() -> None:
    tokenizer = tokenizer_of("byte_level", TEMPLATES["no start token"])
    turns = [{"role": "user", "content": "tie"}, {"role": "assistant", "content": "yes</s>42"}]
    [example] = encode(Dataset.from_list([{"messages": turns}]), tokenizer, 512).examples
    assert "".join(tokens(tokenizer, example)[1]).startswith("yes</s>42<|end|>")
