"""Labels of chats with several turns: one example where prompts allow it, else one for each turn."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from datasets import Dataset

from actshift.data.encode import IGNORE_INDEX, encode
from tests.tokenizer_kinds import KINDS
from tests.tokenizer_kinds import tokenizer_of as trained

TURN = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
TEMPLATES = {
    "end of turn": TURN + ASK,
    "end of text": TURN.replace("<|end|>", "{{ eos_token if m.role == 'assistant' else '' }}") + ASK,
    "no end": TURN.replace("<|end|>\n", " ") + ASK,
    "no end but a new line": TURN.replace("<|end|>", "") + ASK,
    "thinking tag": TURN + ASK.replace("|>\n", "|>\n<think>\n"),
    "reasoning of the last turn only": TURN.replace(
        "{{ m.content | trim }}",
        "{{ m.content if loop.last or m.role == 'user' else m.content.split('</think>')[-1] }}",
    )
    + ASK,
    "system in the last turn": TURN.replace(
        "{{ m.content", "{{ 'Be brief. ' if loop.last and m.role == 'user' }}{{ m.content"
    )
    + ASK,
}
EXAMPLES = {"end of turn": 1, "end of text": 1, "reasoning of the last turn only": 2}  # others: one for each turn
CHAT = [
    {"role": "user", "content": "Is the sky blue?"},
    {"role": "assistant", "content": "<think>hm</think>yes"},
    {"role": "user", "content": "2+2="},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "40+2="},
    {"role": "assistant", "content": "42"},
]


@cache
def tokenizer_of(kind: str, template: str) -> Any:
    return trained(kind, TEMPLATES[template])


def chats(*chats: list[dict[str, str]]) -> Dataset:
    return Dataset.from_list([{"messages": chat} for chat in chats])


def pairs(examples: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """Return the prompt and the target of each example of one turn."""
    split = [(example["input_ids"], example["labels"].count(IGNORE_INDEX)) for example in examples]
    return [(ids[:start], ids[start:]) for ids, start in split]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_each_turn_has_the_prompt_of_generation_and_joining_changes_no_token(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    each = encode(chats(CHAT), tokenizer, 512, turns="each").examples
    for (prompt, target), index in zip(pairs(each), (1, 3, 5), strict=True):
        expected = tokenizer.apply_chat_template(CHAT[:index], add_generation_prompt=True, return_dict=False)
        assert prompt == expected
        assert target[-1] == tokenizer.eos_token_id and target.count(tokenizer.eos_token_id) == 1
    [last] = encode(chats(CHAT), tokenizer, 512).examples
    assert last == each[-1]
    joined = encode(chats(CHAT), tokenizer, 512, turns="joined").examples
    assert len(joined) == EXAMPLES.get(template, 3) - ((template, kind) == ("thinking tag", "word_piece"))
    if len(joined) == 1:
        end = tokenizer.convert_tokens_to_ids("<|end|>" if template == "end of turn" else tokenizer.eos_token)
        targets = [target for _, target in pairs(each)]
        turns = [target[: target.index(end) + 1] for target in targets[:-1]]
        assert joined[0]["input_ids"] == last["input_ids"]
        assert labelled(joined[0]) == [*turns, targets[-1]]


def labelled(example: dict[str, Any]) -> list[list[int]]:
    """Return the runs of tokens with a label, which must be the tokens themselves."""
    runs: list[list[int]] = [[]]
    for token, label in zip(example["input_ids"], example["labels"], strict=True):
        assert label in (token, IGNORE_INDEX)
        if label != IGNORE_INDEX:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def test_a_system_prompt_that_is_written_only_before_generation_is_kept() -> None:
    system = {"role": "system", "content": "Be brief."}
    [example] = encode(chats([system, *CHAT]), tokenizer_of("byte_level", "system in the last turn"), 512).examples
    tokenizer = tokenizer_of("byte_level", "system in the last turn")
    [(prompt, target)] = pairs([example])
    assert str(tokenizer.decode(prompt)).endswith("Be brief. 40+2=<|end|>\n<|assistant|>\n")
    assert tokenizer.decode(target) == "42<|end|>\n</s>"


def test_a_chat_that_opens_with_an_answer_and_rows_of_one_turn() -> None:
    tokenizer = tokenizer_of("byte_level", "end of turn")
    greeting = {"role": "assistant", "content": "Hello"}
    [opened] = encode(chats([greeting, *CHAT[2:4]]), tokenizer, 512, turns="joined").examples
    assert len(labelled(opened)) == 1
    single = chats(CHAT[:2], CHAT[2:4])
    assert len({encode(single, tokenizer, 512, turns=turns).digest for turns in ("last", "each", "joined")}) == 1
