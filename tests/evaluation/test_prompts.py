"""Prompts that exceed the model's context."""

from __future__ import annotations

import warnings

import pytest
from tokenizers.processors import TemplateProcessing

from actshift import ActshiftError
from actshift.evaluation import evaluate, generate_completions, stream_completion
from actshift.evaluation.prompts import encode_prompts
from tests.contract.cases import fresh_model
from tests.tiny import WORDS, word_tokenizer

TOKENIZER = word_tokenizer()
SHORT, LONG = " ".join(WORDS[:3]), " ".join(WORDS[index % 40] for index in range(70))
ROOM = 60  # a context of 64, less four new tokens


def test_a_prompt_beyond_the_context_is_refused_by_its_number() -> None:
    message = (
        "1 of 2 prompts exceed 60 tokens, which is the model's context of 64 less max_new_tokens=4; "
        "the first is prompt 2, with 70"
    )
    with pytest.raises(ActshiftError, match=message):
        generate_completions(fresh_model("llama"), TOKENIZER, [SHORT, LONG], max_new_tokens=4)
    with pytest.raises(ActshiftError, match=message):
        rows = [{"prompt": prompt, "completion": " w1"} for prompt in (SHORT, LONG)]
        evaluate(fresh_model("llama"), TOKENIZER, rows, max_new_tokens=4)


def test_truncation_keeps_the_end_of_a_prompt_and_warns() -> None:
    model, end = fresh_model("llama"), " ".join(LONG.split()[-ROOM:])
    with pytest.warns(UserWarning, match="1 of 2 prompts exceed 60 tokens; only the end of each is used"):
        cut = generate_completions(model, TOKENIZER, [SHORT, LONG], 4, long_prompts="truncate")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_completions(model, TOKENIZER, [SHORT, end], 4) == cut  # the longest that fits


def test_streaming_truncates_a_long_prompt_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="only the end of each is used"):
        assert stream_completion(fresh_model("llama"), TOKENIZER, LONG, lambda piece: None, max_new_tokens=4)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ActshiftError, match=r"long_prompts 'truncat' \(did you mean 'truncate'.*of refuse, truncate\."):
        generate_completions(fresh_model("llama"), TOKENIZER, [SHORT], 4, long_prompts="truncat")


def test_a_start_token_is_added_only_once() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    plain, rendered = encode_prompts(fresh_model("llama").config, tokenizer, ["w0", "<bos> w0"], 4)
    assert plain == rendered == [1, 3]


def test_prompts_that_are_messages_are_rendered() -> None:
    model, messages = fresh_model("llama"), [{"role": "user", "content": "w1 w2"}]
    tokenizer = word_tokenizer(chat_template="{{ bos_token }} w7 {{ messages[0].content }} w8")
    rendered = generate_completions(model, tokenizer, ["<bos> w7 w1 w2 w8"], 4, add_special_tokens=False)
    assert generate_completions(model, tokenizer, [messages, "w1 w2"], 4)[:1] == rendered
    assert stream_completion(model, tokenizer, messages, lambda piece: None, 4) == rendered[0]
    rows = [{"messages": [*messages, {"role": "assistant", "content": rendered[0]}]}]
    assert evaluate(model, tokenizer, rows, max_new_tokens=4).accuracy == 1
    with pytest.raises(ActshiftError, match="The messages of prompt 1 must end with a turn to answer"):
        generate_completions(model, tokenizer, [rows[0]["messages"]], 4)
    with pytest.raises(ActshiftError, match="has no chat template to render messages with"):
        generate_completions(model, TOKENIZER, [messages], 4)
