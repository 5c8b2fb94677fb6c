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
ROOM = 60  # a context of 64, less four tokens to write


def test_a_prompt_beyond_the_context_is_refused_and_named() -> None:
    message = (
        "1 of 2 prompts exceed 60 tokens, which is the model's context of 64 less max_new_tokens=4; "
        "the first is prompt 2, with 70"
    )
    with pytest.raises(ActshiftError, match=message):
        generate_completions(fresh_model("llama"), TOKENIZER, [SHORT, LONG], max_new_tokens=4)
    with pytest.raises(ActshiftError, match=message):
        rows = [{"prompt": prompt, "completion": " w1"} for prompt in (SHORT, LONG)]
        evaluate(fresh_model("llama"), TOKENIZER, rows, max_new_tokens=4)


def test_it_is_truncated_from_the_left_by_choice_and_never_silently() -> None:
    model, end = fresh_model("llama"), " ".join(LONG.split()[-ROOM:])
    with pytest.warns(UserWarning, match="1 of 2 prompts exceed 60 tokens; of these the end is read"):
        cut = generate_completions(model, TOKENIZER, [SHORT, LONG], 4, long_prompts="truncate")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_completions(model, TOKENIZER, [SHORT, end], 4) == cut  # the longest that fits


def test_a_talk_that_has_grown_too_long_goes_on() -> None:
    with pytest.warns(UserWarning, match="of these the end is read"):
        assert stream_completion(fresh_model("llama"), TOKENIZER, LONG, lambda piece: None, max_new_tokens=4)


def test_another_choice_is_refused() -> None:
    with pytest.raises(ActshiftError, match=r"one of refuse, truncate, got 'truncat' \(did you mean 'truncate'"):
        generate_completions(fresh_model("llama"), TOKENIZER, [SHORT], 4, long_prompts="truncat")


def test_a_start_token_is_not_doubled() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    plain, rendered = encode_prompts(fresh_model("llama").config, tokenizer, ["w0", "<bos> w0"], 4)
    assert plain == rendered == [1, 3]
