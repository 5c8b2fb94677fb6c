"""Positions in training: prompts from labels or prompt_lengths, checkpointing, packing, and copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, SteeringConfig, attach, prompt_lengths
from actshift.sites import Positions
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model, randomise, run
from tests.tuner.reference_positions import POSITIONS, PROMPTS, batch_of, reference_logits, steered

COMPLETIONS = [[30, 31], [40, 41, 42, 43], [50]]
ROWS = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
LENGTHS = [len(prompt) for prompt in PROMPTS]
CLOSE = dict(atol=2e-5, rtol=1e-4)

each_position = pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
paddings = pytest.mark.parametrize("padding", ["left", "right"])


def training_batch(padding: str = "right"):
    """Return prompts with completions, labels on the completions, and position ids that ignore padding."""
    batch = batch_of(ROWS, padding)
    mask = batch["attention_mask"].bool()
    position_ids = mask.cumsum(-1) - 1
    target = mask & (position_ids >= torch.tensor(LENGTHS)[:, None])
    labels = batch["input_ids"].where(target, torch.tensor(-100))
    return batch | dict(labels=labels, position_ids=position_ids.clamp(min=0))


@each_position
@paddings
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_labels_and_prompt_lengths_mark_the_end_of_the_prompts(name, padding, positions):
    model = steered(name, positions).train()
    batch = training_batch(padding)
    by_labels = model(**batch).logits
    with prompt_lengths(model, LENGTHS):
        del batch["labels"]
        assert torch.equal(model(**batch).logits, by_labels)
    for row, (tokens, prompt) in enumerate(zip(ROWS, LENGTHS, strict=True)):
        expected = reference_logits(model, name, tokens, prompt)
        torch.testing.assert_close(by_labels[row][batch["attention_mask"][row].bool()], expected, **CLOSE)


@each_position
@pytest.mark.parametrize("site", ["post_block", "post_mlp"])
def test_two_checkpointed_forwards_before_one_backward(site, positions):
    gradients = []
    for checkpointing in (False, True):
        model = steered("llama", positions, site=site)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        batch = training_batch()
        first = model(**batch).loss
        with prompt_lengths(model, [1, 1, 1]):  # same shape, other prompts
            second = model(**batch).logits.square().mean()
        with torch.no_grad():
            model.eval()(**batch_of(PROMPTS))
        (first + second).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(recomputed, plain, atol=1e-7, rtol=1e-5)


PACKED = {
    "position_ids start again": dict(position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0]])),
    "cu_seq_lens_q is given": dict(cu_seq_lens_q=torch.tensor([0, 4, 7, 8], dtype=torch.int32)),
    "attention_mask numbers them": dict(attention_mask=torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3]])),
}


@pytest.mark.parametrize("how", PACKED)
def test_packed_batches_are_refused(how):
    ids = torch.tensor([[5, 17, 33, 8, 9, 41, 23, 71]])
    model = steered("llama", Positions.prompt()).train()
    with pytest.raises(ActshiftError, match=how):
        model(input_ids=ids, labels=ids, **PACKED[how])
    if "position_ids" in PACKED[how]:
        steered("llama", Positions.all()).train()(input_ids=ids, labels=ids, **PACKED[how])
        with model.disable_adapter():  # no layer needs the prompt
            model(input_ids=ids, labels=ids, **PACKED[how])


def test_position_ids_of_padding_are_not_taken_for_packing():
    model = steered("llama", Positions.last_token())
    batch = batch_of(PROMPTS)
    position_ids = batch["attention_mask"].cumsum(-1) - 1
    with torch.no_grad():
        expected = model(**batch, position_ids=position_ids.clamp(min=0)).logits
        position_ids = position_ids.masked_fill(position_ids < 0, 1)  # as some collators do
        filled = model(**batch, position_ids=position_ids).logits
    attended = batch["attention_mask"].bool()
    torch.testing.assert_close(filled[attended], expected[attended], **CLOSE)


def test_unknown_prompts_are_errors_that_name_the_fix():
    model, batch = steered("llama", Positions.last_token()).train(), batch_of(PROMPTS)
    with pytest.raises(ActshiftError, match="prompt_lengths"):
        model(**batch)
    with pytest.raises(ActshiftError, match="no row has a prompt"):
        model(**batch, labels=batch["input_ids"])
    with pytest.raises(ActshiftError, match="outside of a call of the whole model"):
        model.get_base_model().model(**batch)
    with pytest.raises(ActshiftError, match="2 lengths for 3 rows"), prompt_lengths(model, [2, 3]):
        model(**batch)
    with pytest.raises(ActshiftError, match=r"attention_mask \[batch, 7\]"):
        model(batch["input_ids"], attention_mask=torch.ones(3, 1, 7, 7))
    with pytest.raises(ActshiftError, match=r"got \[-1\]"), prompt_lengths(model, [-1]):
        pass
    with pytest.raises(ActshiftError, match="carries no steering"), prompt_lengths(fresh_model("llama"), [1]):
        pass
    replica = copy.deepcopy(model.get_base_model())
    replica._is_replica = True
    with pytest.raises(ActshiftError, match="DataParallel"):
        replica(**batch)
    model.eval()(**batch)


def test_positions_need_the_halves_of_an_encoder_decoder(monkeypatch):
    model = fresh_model("t5")
    monkeypatch.setattr(type(model), "get_encoder", lambda self, modality=None: self)
    attach(model, SteeringConfig(rank=2)).unload()
    with pytest.raises(ActshiftError, match=r"get_encoder\(\) and get_decoder\(\) of T5For.* do not return the halves"):
        attach(model, SteeringConfig(rank=2, positions=Positions.prompt()))
    assert not steering_layers(model)


@each_position
def test_native_adapter_generates_as_a_peft_model(base, positions):
    model = steered("llama", positions)
    base.add_adapter(SteeringConfig(rank=4, positions=positions), "own")
    randomise(base)
    batch = batch_of(PROMPTS)
    for cache in (True, False):
        settings = dict(max_new_tokens=4, do_sample=False, use_cache=cache)
        assert torch.equal(base.generate(**batch, **settings), model.generate(**batch, **settings))
    base.delete_adapter("own")


@each_position
def test_positions_survive_saving_and_copying(base, base_folder, positions, tmp_path):
    model = attach(base, SteeringConfig(rank=4, positions=positions)).eval()
    randomise(model)
    batch = batch_of(PROMPTS)
    settings = dict(max_new_tokens=4, do_sample=False, use_cache=False)
    expected = model.generate(**batch, **settings)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), tmp_path)
    assert loaded.peft_config["default"].all_interventions[0].positions == positions
    for twin in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.generate(**batch, **settings), expected)
        layers, own = steering_layers(twin).values(), steering_layers(model).values()
        assert not {id(layer.prompts) for layer in layers} & {id(layer.prompts) for layer in own}


def test_unload_removes_all_hooks_and_adapters_at_all_tokens_add_none():
    base = fresh_model("llama")
    plain = run(base, "llama")

    def hooks_and_attributes(model):
        return [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m.__dict__)) for m in model.modules()]

    before = hooks_and_attributes(base)
    model = attach(base, SteeringConfig(rank=4))
    assert "generate" not in base.__dict__ and not base._forward_pre_hooks
    model.add_adapter("second", SteeringConfig(rank=4, positions=Positions.prompt()))
    assert "generate" in base.__dict__ and len(base._forward_pre_hooks) == 1
    unloaded = model.unload()
    assert hooks_and_attributes(unloaded) == before
    assert torch.equal(run(unloaded, "llama"), plain)


@pytest.mark.slow
@each_position
def test_compiled_forward_follows_prompt_lengths(positions):
    model = steered("llama", positions)
    compiled = torch.compile(model.get_base_model(), backend="aot_eager")
    for lengths in (LENGTHS, [1, 1, 1]):
        batch = batch_of(ROWS)
        with prompt_lengths(model, lengths), torch.no_grad():
            torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, **CLOSE)
