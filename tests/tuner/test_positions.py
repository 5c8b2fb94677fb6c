"""What is steered in prefill and decode is what one forward over both would steer, however they are run."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError
from actshift.sites import Positions
from tests.contract.cases import fresh_model
from tests.tuner.positions_by_hand import PLACES, PROMPTS, batch_of, logits_by_hand, steered

MODELS = ("llama", "qwen3", "gemma3", "gpt2", "opt")
CLOSE = dict(atol=2e-5, rtol=1e-4)
WIDTH = 7  # of the batch of prompts

places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def generate(model, batch, **settings):
    """Greedy generation of four tokens; returns the sequences and the logits `[batch, new, vocab]` of each step."""
    settings = dict(max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True) | settings
    output = model.generate(**batch, **settings)
    return output.sequences, torch.stack(output.logits, dim=1)


def assert_as_by_hand(model, name, sequences, logits, prompts=PROMPTS):
    for row, prompt in enumerate(prompts):
        whole = prompt + sequences[row, -logits.shape[1] :].tolist()
        expected = logits_by_hand(model, name, whole, len(prompt))[len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row], expected, **CLOSE)


@places
@pytest.mark.parametrize("name", MODELS)
def test_generation_with_and_without_cache(name, place):
    model = steered(name, place)
    for cache in (True, False):
        assert_as_by_hand(model, name, *generate(model, batch_of(PROMPTS), use_cache=cache))


@places
@pytest.mark.parametrize("site", ["post_mlp", "post_attention", "attention_heads"])
def test_other_sites(site, place):
    for name in ("llama", "opt"):  # OPT's MLP sees batch and seq as one
        model = steered(name, place, site=site)
        assert_as_by_hand(model, name, *generate(model, batch_of(PROMPTS)))


@places
def test_static_cache_and_a_prefill_in_chunks(place):
    model = steered("llama", place)
    for settings in (dict(cache_implementation="static"), dict(prefill_chunk_size=3)):
        assert_as_by_hand(model, "llama", *generate(model, batch_of(PROMPTS), **settings))


@places
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_beam_search(name, place):
    model = steered(name, place)
    output = model.generate(
        **batch_of(PROMPTS), max_new_tokens=4, num_beams=3, num_return_sequences=2, output_scores=True,
        return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    for i, (sequence, score) in enumerate(zip(output.sequences, output.sequences_scores, strict=True)):
        prompt, new = PROMPTS[i // 2], sequence[WIDTH:]
        logits = logits_by_hand(model, name, prompt + new.tolist(), len(prompt))[len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, new[:, None]).sum() / len(new)
        torch.testing.assert_close(score, expected, **CLOSE)


@places
def test_assisted_generation(place):
    model = steered("llama", place)
    prompt = PROMPTS[0][:3] * 3  # the next tokens are then looked up in the prompt
    for helper in (dict(prompt_lookup_num_tokens=2), dict(assistant_model=fresh_model("llama"))):
        assert_as_by_hand(model, "llama", *generate(model, batch_of([prompt]), **helper), prompts=[prompt])


@places
def test_a_cache_filled_before(place):
    from transformers import DynamicCache

    from actshift import prompt_lengths

    model, prompt = steered("llama", place), PROMPTS[0]
    for ids in ([prompt], [prompt[3:]]):  # all tokens, or only those that the cache lacks
        cache = DynamicCache()
        with torch.no_grad(), prompt_lengths(model, [len(prompt)]):
            model(input_ids=torch.tensor([prompt[:3]]), past_key_values=cache)
        batch = dict(input_ids=torch.tensor(ids), attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        assert_as_by_hand(model, "llama", *generate(model, batch, past_key_values=cache), prompts=[prompt])


@places
def test_padding_that_generate_finds_out_itself(place):
    model = steered("llama", place)
    batch = batch_of(PROMPTS)
    expected, _ = generate(model, batch)
    assert torch.equal(model.generate(batch["input_ids"], max_new_tokens=4, do_sample=False), expected)


def test_embeddings_as_the_prompt():
    model = steered("llama", Positions.last_token())
    batch = batch_of(PROMPTS)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    mask = batch["attention_mask"]
    assert_as_by_hand(model, "llama", *generate(model, dict(inputs_embeds=embeds, attention_mask=mask)))


@places
def test_a_loop_of_ones_own(place):
    model, prompt = steered("qwen3", place), PROMPTS[0]
    with torch.no_grad():
        first = model(input_ids=torch.tensor([prompt]), use_cache=True)
        second = model(input_ids=torch.tensor([[44]]), past_key_values=first.past_key_values)
    logits = torch.cat([first.logits, second.logits], dim=1)[0]
    expected = logits_by_hand(model, "qwen3", [*prompt, 44], len(prompt))
    torch.testing.assert_close(logits, expected, **CLOSE)


def two_adapters(name):
    model = steered(name, Positions.last_token())
    from actshift import SteeringConfig
    from tests.contract.cases import randomise

    model.add_adapter("second", SteeringConfig(rank=2, positions=Positions.generated()))
    model.set_adapter("second")
    randomise(model, scale=0.4)
    return model.eval()


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_rows_with_adapters_at_positions_of_their_own(name):
    model, names = two_adapters(name), ["second", "default", "second"]
    output = model.generate(
        **batch_of(PROMPTS), adapter_names=names, max_new_tokens=4, num_beams=2, output_scores=True,
        return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    for prompt, adapter, sequence, score in zip(PROMPTS, names, output.sequences, output.sequences_scores, strict=True):
        new = sequence[WIDTH:]
        logits = logits_by_hand(model, name, prompt + new.tolist(), len(prompt), adapter)[len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, new[:, None]).sum() / len(new)
        torch.testing.assert_close(score, expected, **CLOSE)


@places
def test_encoder_is_prompt_and_decoder_is_generated(place):
    model = steered("t5", place)
    batch = batch_of(PROMPTS)
    settings = dict(max_new_tokens=4, do_sample=False, num_beams=2)
    sequences = model.generate(**batch, **settings)
    assert torch.equal(sequences, model.generate(**batch, **settings, use_cache=False))
    with torch.no_grad():
        together = model(**batch, decoder_input_ids=sequences[:, :-1]).logits
        for row, prompt in enumerate(PROMPTS):
            alone = model(input_ids=torch.tensor([prompt]), decoder_input_ids=sequences[row : row + 1, :-1]).logits[0]
            torch.testing.assert_close(together[row], alone, **CLOSE)
            if place.where == "generated":
                expected = steered("t5", Positions.all(), layers=[-2, -1])
            elif place.where == "prompt":
                expected = steered("t5", Positions.all(), layers=[0, 1])
            else:
                continue
            _same_tensors(model, expected)
            alone = expected(input_ids=torch.tensor([prompt]), decoder_input_ids=sequences[row : row + 1, :-1]).logits
            torch.testing.assert_close(together[row], alone[0], **CLOSE)


def _same_tensors(source, target):
    values = source.state_dict()
    target.load_state_dict({name: values[name] for name in target.state_dict()})


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_all_that_an_encoder_sees_is_prompt(name):
    from tests.contract.cases import run

    base = run(fresh_model(name), name)
    everywhere = run(steered(name, Positions.all()), name)
    assert torch.equal(run(steered(name, Positions.prompt()), name), everywhere)
    assert torch.equal(run(steered(name, Positions.generated()), name), base)
    ends = run(steered(name, Positions.ends(first=2, last=1)), name)
    assert not torch.allclose(ends, everywhere, atol=1e-3) and not torch.allclose(ends, base, atol=1e-3)


def test_classifier_reads_the_last_prompt_token_whatever_the_padding():
    from transformers import AutoModelForSequenceClassification

    from actshift import SteeringConfig, attach
    from tests.contract.cases import randomise

    model = AutoModelForSequenceClassification.from_config(fresh_model("llama").config)
    model = attach(model, SteeringConfig(rank=4, positions=Positions.last_token(), task_type="SEQ_CLS"))
    randomise(model)
    model.train()  # labels are classes here, and no completion follows
    alone = torch.cat([model(input_ids=torch.tensor([row]), labels=torch.tensor([1])).logits for row in PROMPTS])
    for padding in ("left", "right"):
        batch = batch_of(PROMPTS, padding)
        places = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        torch.testing.assert_close(model(**batch, position_ids=places).logits, alone, **CLOSE)


@pytest.mark.parametrize("wrong", [dict(guidance_scale=2.0)])
def test_forwards_over_other_tokens_are_refused(wrong):
    with pytest.raises(ActshiftError, match="guidance_scale"):
        generate(steered("llama", Positions.prompt()), batch_of(PROMPTS), **wrong)
