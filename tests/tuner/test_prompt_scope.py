"""Prefill and decoding steer the tokens that one forward pass over the whole sequence steers."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError
from actshift.sites import Positions
from tests.contract.cases import fresh_model
from tests.tuner.reference_positions import POSITIONS, PROMPTS, batch_of, reference_logits, steered

MODELS = ("llama", "qwen3", "gemma3", "gpt2", "opt")
CLOSE = dict(atol=2e-5, rtol=1e-4)
WIDTH = 7  # of the batch of prompts

each_position = pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)


def generate(model, batch, **settings):
    """Generate four tokens greedily; return the sequences and the logits `[batch, new, vocab]` of each step."""
    settings = dict(max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True) | settings
    output = model.generate(**batch, **settings)
    return output.sequences, torch.stack(output.logits, dim=1)


def assert_matches_reference(model, name, sequences, logits, prompts=PROMPTS):
    for row, prompt in enumerate(prompts):
        whole = prompt + sequences[row, -logits.shape[1] :].tolist()
        expected = reference_logits(model, name, whole, len(prompt))[len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[row], expected, **CLOSE)


@each_position
@pytest.mark.parametrize("name", MODELS)
def test_generation_with_and_without_cache(name, positions):
    model = steered(name, positions)
    for cache in (True, False):
        assert_matches_reference(model, name, *generate(model, batch_of(PROMPTS), use_cache=cache))


@each_position
@pytest.mark.parametrize("site", ["post_mlp", "post_attention", "attention_heads"])
def test_generation_at_other_sites(site, positions):
    for name in ("llama", "opt"):  # OPT flattens batch and sequence before its MLP
        model = steered(name, positions, site=site)
        assert_matches_reference(model, name, *generate(model, batch_of(PROMPTS)))


@each_position
def test_generation_with_static_cache_and_chunked_prefill(positions):
    model = steered("llama", positions)
    for settings in (dict(cache_implementation="static"), dict(prefill_chunk_size=3)):
        assert_matches_reference(model, "llama", *generate(model, batch_of(PROMPTS), **settings))


@each_position
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_generation_with_beam_search(name, positions):
    model = steered(name, positions)
    output = model.generate(
        **batch_of(PROMPTS), max_new_tokens=4, num_beams=3, num_return_sequences=2, output_scores=True,
        return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    for i, (sequence, score) in enumerate(zip(output.sequences, output.sequences_scores, strict=True)):
        prompt, new = PROMPTS[i // 2], sequence[WIDTH:]
        logits = reference_logits(model, name, prompt + new.tolist(), len(prompt))[len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, new[:, None]).sum() / len(new)
        torch.testing.assert_close(score, expected, **CLOSE)


@each_position
def test_assisted_generation(positions):
    model = steered("llama", positions)
    prompt = PROMPTS[0][:3] * 3  # repetition lets prompt lookup find candidates
    for helper in (dict(prompt_lookup_num_tokens=2), dict(assistant_model=fresh_model("llama"))):
        assert_matches_reference(model, "llama", *generate(model, batch_of([prompt]), **helper), prompts=[prompt])


@each_position
def test_generation_with_a_prefilled_cache(positions):
    from transformers import DynamicCache

    from actshift import prompt_lengths

    model, prompt = steered("llama", positions), PROMPTS[0]
    for ids in ([prompt], [prompt[3:]]):  # all tokens, or only those not in the cache
        cache = DynamicCache()
        with torch.no_grad(), prompt_lengths(model, [len(prompt)]):
            model(input_ids=torch.tensor([prompt[:3]]), past_key_values=cache)
        batch = dict(input_ids=torch.tensor(ids), attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        assert_matches_reference(model, "llama", *generate(model, batch, past_key_values=cache), prompts=[prompt])


@each_position
def test_generation_without_attention_mask_infers_the_padding(positions):
    model = steered("llama", positions)
    batch = batch_of(PROMPTS)
    expected, _ = generate(model, batch)
    assert torch.equal(model.generate(batch["input_ids"], max_new_tokens=4, do_sample=False), expected)


def test_generation_from_embeddings():
    model = steered("llama", Positions.last_token())
    batch = batch_of(PROMPTS)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    mask = batch["attention_mask"]
    assert_matches_reference(model, "llama", *generate(model, dict(inputs_embeds=embeds, attention_mask=mask)))


@each_position
def test_a_custom_decoding_loop(positions):
    model, prompt = steered("qwen3", positions), PROMPTS[0]
    with torch.no_grad():
        first = model(input_ids=torch.tensor([prompt]), use_cache=True)
        second = model(input_ids=torch.tensor([[44]]), past_key_values=first.past_key_values)
    logits = torch.cat([first.logits, second.logits], dim=1)[0]
    expected = reference_logits(model, "qwen3", [*prompt, 44], len(prompt))
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
def test_rows_with_adapters_at_different_positions(name):
    model, names = two_adapters(name), ["second", "default", "second"]
    output = model.generate(
        **batch_of(PROMPTS), adapter_names=names, max_new_tokens=4, num_beams=2, output_scores=True,
        return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    for prompt, adapter, sequence, score in zip(PROMPTS, names, output.sequences, output.sequences_scores, strict=True):
        new = sequence[WIDTH:]
        logits = reference_logits(model, name, prompt + new.tolist(), len(prompt), adapter)[len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, new[:, None]).sum() / len(new)
        torch.testing.assert_close(score, expected, **CLOSE)


@each_position
def test_encoder_tokens_are_prompt_and_decoder_tokens_are_generated(positions):
    model = steered("t5", positions)
    batch = batch_of(PROMPTS)
    settings = dict(max_new_tokens=4, do_sample=False, num_beams=2)
    sequences = model.generate(**batch, **settings)
    assert torch.equal(sequences, model.generate(**batch, **settings, use_cache=False))
    with torch.no_grad():
        together = model(**batch, decoder_input_ids=sequences[:, :-1]).logits
        for row, prompt in enumerate(PROMPTS):
            alone = model(input_ids=torch.tensor([prompt]), decoder_input_ids=sequences[row : row + 1, :-1]).logits[0]
            torch.testing.assert_close(together[row], alone, **CLOSE)
            if positions.where == "generated":
                expected = steered("t5", Positions.all(), layers=[-2, -1])
            elif positions.where == "prompt":
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
def test_every_token_of_an_encoder_is_prompt(name):
    from tests.contract.cases import run

    base = run(fresh_model(name), name)
    everywhere = run(steered(name, Positions.all()), name)
    assert torch.equal(run(steered(name, Positions.prompt()), name), everywhere)
    assert torch.equal(run(steered(name, Positions.generated()), name), base)
    ends = run(steered(name, Positions.ends(first=2, last=1)), name)
    assert not torch.allclose(ends, everywhere, atol=1e-3) and not torch.allclose(ends, base, atol=1e-3)


def test_classifier_reads_the_last_prompt_token_with_either_padding():
    from transformers import AutoModelForSequenceClassification

    from actshift import SteeringConfig, attach
    from tests.contract.cases import randomise

    model = AutoModelForSequenceClassification.from_config(fresh_model("llama").config)
    model = attach(model, SteeringConfig(rank=4, positions=Positions.last_token(), task_type="SEQ_CLS"))
    randomise(model)
    model.train()  # labels are classes here, so every token is prompt
    alone = torch.cat([model(input_ids=torch.tensor([row]), labels=torch.tensor([1])).logits for row in PROMPTS])
    for padding in ("left", "right"):
        batch = batch_of(PROMPTS, padding)
        position_ids = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        torch.testing.assert_close(model(**batch, position_ids=position_ids).logits, alone, **CLOSE)


@pytest.mark.parametrize("settings", [dict(guidance_scale=2.0)])
def test_guidance_that_runs_over_other_tokens_is_refused(settings):
    with pytest.raises(ActshiftError, match="guidance_scale"):
        generate(steered("llama", Positions.prompt()), batch_of(PROMPTS), **settings)


def test_a_recurrent_state_that_does_not_count_tokens_is_refused():
    from transformers import RwkvConfig, RwkvForCausalLM

    from actshift import SteeringConfig, attach

    config = RwkvConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, eos_token_id=None)
    model = attach(RwkvForCausalLM(config), SteeringConfig(rank=2, positions=Positions.generated())).eval()
    batch = batch_of(PROMPTS[:1])
    with pytest.raises(ActshiftError, match=r"no number of tokens\. Set use_cache=False"):
        generate(model, batch)
    generate(model, batch, use_cache=False)
