"""Chat templates render messages, and the start token appears once."""

from __future__ import annotations

import pytest
from datasets import Dataset

from actshift import ActshiftError
from actshift.data import to_prompt_completion, token_ids
from tests.characters import char_tokenizer

CHAT = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_chat_template_renders_prompt_and_completion() -> None:
    tokenizer = char_tokenizer()
    with pytest.raises(ActshiftError, match="has no chat template"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    tokenizer.chat_template = TEMPLATE
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>", "completion": "2"}


def test_rows_without_messages_are_returned_unchanged() -> None:
    pairs = Dataset.from_list([{"prompt": "1+1=", "completion": "2"}])
    assert to_prompt_completion(pairs, char_tokenizer()) is pairs


def test_the_prompt_is_the_one_of_generation_if_the_template_starts_an_answer_differently() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("<a>{%", "<a>?{%")
    [row] = to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)
    assert row == {"prompt": "<u>1+1\n<a>?", "completion": "2"}


def test_an_error_of_the_template_names_the_row() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ActshiftError, match="rejects the messages of row 1: roles must alternate"):
        to_prompt_completion(Dataset.from_list([CHAT]), tokenizer)


def test_the_start_token_appears_once() -> None:
    tokenizer = char_tokenizer()
    assert token_ids(tokenizer, ["<s>1", "1"]) == token_ids(tokenizer, ["1", "1"])
    assert token_ids(tokenizer, ["1"])[0][0] == tokenizer.bos_token_id
