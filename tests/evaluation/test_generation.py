"""Batched and streamed completions."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError, SteeringConfig, attach
from actshift.evaluation import generate_completions, stream_completion
from tests.contract.cases import fresh_model, randomise, steered_model
from tests.tiny import WORDS, word_tokenizer

TOKENIZER = word_tokenizer()


def prompts_of(lengths: list[int]) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=length)) for length in lengths]


UNEVEN = prompts_of([3, 11, 1, 7, 20, 2, 5])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "bloom"])
def test_batches_equal_single_prompts(name: str) -> None:
    model = fresh_model(name)
    single = [generate_completions(model, TOKENIZER, [prompt], max_new_tokens=8)[0] for prompt in UNEVEN]
    assert generate_completions(model, TOKENIZER, UNEVEN, max_new_tokens=8, batch_size=3) == single
    assert len(set(single)) > 1


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8), batch_size=st.integers(1, 9))
def test_completions_come_in_the_order_of_the_prompts(lengths: list[int], batch_size: int) -> None:
    class Echo:  # repeats the last token: a completion identifies its prompt
        training, device = False, "cpu"
        config = type("Config", (), {"get_text_config": lambda self: self})()
        generation_config = type("Generation", (), {"eos_token_id": None})()
        eval = train = lambda self, mode=True: None
        can_generate = lambda self: True  # noqa: E731

        def generate(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
            return torch.cat([input_ids, input_ids[:, -1:]], dim=1)

    prompts = prompts_of(lengths)
    expected = [prompt.split()[-1] for prompt in prompts]
    assert generate_completions(Echo(), TOKENIZER, prompts, batch_size=batch_size) == expected


def test_the_padding_side_is_ignored_and_the_mode_of_the_model_restored() -> None:
    tokenizer = word_tokenizer(padding_side="right")
    model = fresh_model("llama").train()
    padded_left = generate_completions(model, TOKENIZER, UNEVEN, max_new_tokens=4)
    assert generate_completions(model, tokenizer, UNEVEN, max_new_tokens=4) == padded_left
    assert model.training
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)


@pytest.mark.parametrize("owner", ["model", "tokenizer"])
def test_a_completion_ends_at_either_end_token(owner: str) -> None:
    model, tokenizer = fresh_model("llama"), word_tokenizer()
    words = generate_completions(model, tokenizer, UNEVEN[:1], max_new_tokens=8)[0].split()
    end = next(word for word in words[1:] if word != words[0])
    if owner == "model":
        model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(end)]
    else:
        tokenizer.eos_token = end
    cut = generate_completions(model, tokenizer, UNEVEN, max_new_tokens=8, batch_size=4)
    assert cut[0].split() == words[: words.index(end)]


def test_greedy_decoding_ignores_the_models_own_settings() -> None:
    model = fresh_model("llama")
    plain = generate_completions(model, TOKENIZER, UNEVEN, max_new_tokens=8)
    for name, value in dict(do_sample=True, temperature=9.0, repetition_penalty=5.0, num_beams=3).items():
        setattr(model.generation_config, name, value)
    assert generate_completions(model, TOKENIZER, UNEVEN, max_new_tokens=8) == plain


def test_a_positive_temperature_samples() -> None:
    model = fresh_model("llama")
    torch.manual_seed(0)
    first, second = (generate_completions(model, TOKENIZER, UNEVEN, 8, temperature=2.0) for _ in range(2))
    torch.manual_seed(0)
    assert generate_completions(model, TOKENIZER, UNEVEN, 8, temperature=2.0) == first != second


def test_each_prompt_can_have_its_own_adapter() -> None:
    model = steered_model("llama", "nonlinear", "post_block")
    attach(model, SteeringConfig(rank=2), adapter_name="other").set_adapter("other")
    randomise(model)
    prompts, names = UNEVEN[:3] * 3, [name for name in ("default", "other", "__base__") for _ in range(3)]
    mixed = generate_completions(model, TOKENIZER, prompts, 8, batch_size=4, adapter_names=names)
    separate = []
    for name in ("default", "other"):
        model.set_adapter(name)
        separate += generate_completions(model, TOKENIZER, UNEVEN[:3], 8)
    assert mixed == separate + generate_completions(fresh_model("llama"), TOKENIZER, UNEVEN[:3], 8)
    assert mixed[:3] != mixed[3:6] != mixed[6:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(max_new_tokens=0), "max_new_tokens must be a whole number from 1 up, got 0"),
        (dict(max_new_tokens=64), "leaves no room for a prompt: the model's context has 64 tokens"),
        (dict(batch_size=0, max_new_tokens=8), "batch_size must be a whole number from 1 up"),
        (dict(temperature=-1.0), "temperature must be 0"),
        (dict(temperature=float("nan")), "temperature must be 0"),
        (dict(adapter_names=["a"]), "adapter_names has 1 entries for 2 prompts"),
        (dict(prompts=["w1", ""]), "Prompt 2 is empty"),
    ],
)
def test_invalid_arguments_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        generate_completions(fresh_model("llama"), TOKENIZER, **{"prompts": ["w1", "w2 w3"], **changes})


def test_no_prompts_give_no_completions() -> None:
    assert generate_completions(fresh_model("llama"), TOKENIZER, [], max_new_tokens=8) == []


def test_streaming_yields_the_same_text_in_pieces() -> None:
    model, pieces = fresh_model("llama"), []
    whole = stream_completion(model, TOKENIZER, UNEVEN[0], pieces.append, max_new_tokens=8)
    assert whole == "".join(pieces) == generate_completions(model, TOKENIZER, UNEVEN[:1], 8)[0]
    assert len(pieces) > 2
