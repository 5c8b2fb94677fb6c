"""Capturing activations: which calls are returned, and what the model looks like afterwards."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from actshift import ActshiftError
from actshift.analysis.capture import capture_calls, inference, output_hooks, require_tokens, split_batches, unmasked
from actshift.sites import find_blocks
from tests.zoo import ARCHITECTURES, LAYERS, example_inputs

BATCH = example_inputs("llama")


@pytest.fixture
def model():
    return ARCHITECTURES["llama"]()


def _blocks(model) -> list[nn.Module]:
    return [block for _, block in find_blocks(model)]


def _hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_observe_returns_inputs_and_outputs_of_modules_in_their_given_order(name):
    model = ARCHITECTURES[name]()
    batch = example_inputs(name)
    states = model(**batch, output_hidden_states=True).hidden_states
    calls = capture_calls(model, batch, _blocks(model)[::-1])[::-1]
    for block in range(LAYERS - 1):  # the last hidden state is normalised
        assert torch.equal(calls[block].args[0], states[block])
        assert torch.equal(calls[block].output, states[block + 1])


def test_observe_stops_after_the_last_module(model):
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head was called"))
    assert len(capture_calls(model, BATCH, _blocks(model)[:2], stop=True)) == 2


def test_observe_ignores_labels_and_names_a_module_that_is_not_called(model):
    assert capture_calls(model, {**BATCH, "labels": torch.full((2, 7), 10**6)}, _blocks(model)[:1])
    with pytest.raises(ActshiftError, match="LlamaForCausalLM does not call its Linear"):
        capture_calls(model, BATCH, [nn.Linear(1, 1)])


@torch.no_grad()
def test_a_tensor_from_a_visit_replaces_the_output(model):
    seen = []
    with output_hooks(_blocks(model), lambda index, call: seen.append(index) or torch.zeros_like(call.output)):
        logits = model(**BATCH).logits
    assert seen == list(range(LAYERS))
    assert torch.equal(logits, torch.zeros_like(logits))
    assert not torch.equal(model(**BATCH).logits, logits)


def test_hooks_are_removed_after_an_error(model):
    before = _hooks(model)
    with pytest.raises(KeyError), output_hooks(_blocks(model), lambda index, call: {}[index]):
        model(**BATCH)
    assert _hooks(model) == before


def test_inference_restores_the_mode_of_each_module(model):
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    with inference(model):
        assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes


def test_every_third_row_is_for_validation_across_batches():
    batches = [{"input_ids": torch.ones(rows, 2), "attention_mask": torch.tensor([[1, 0]] * rows)} for rows in (2, 3)]
    assert split_batches([]) == []
    rows = []
    for batch, masks in zip(batches, split_batches(batches), strict=True):
        fitted, validation = (mask["attention_mask"] for mask in masks)
        assert torch.equal(fitted | validation, batch["attention_mask"].bool()) and not (fitted & validation).any()
        rows += validation[:, 0].tolist()
    assert rows == [False, True, False, False, True]


def test_unmasked_accepts_flattened_tokens():
    hidden, mask = torch.arange(6.0).reshape(1, 3, 2), torch.tensor([[1, 0, 1]])
    for shape in ((1, 3, 2), (3, 2)):
        assert unmasked(hidden.reshape(shape), {"attention_mask": mask}).tolist() == [[0, 1], [4, 5]]


def test_too_little_text_is_rejected_with_the_least_amount():
    require_tokens([BATCH], 4, "the analysis")
    with pytest.raises(ActshiftError, match=r"The analysis needs at least 15 tokens in 2 rows, but there are 14 in 2"):
        require_tokens([BATCH], 15, "the analysis")
    with pytest.raises(ActshiftError, match="there are no rows"):
        require_tokens([], 4, "the analysis")


def test_activations_that_are_not_one_vector_for_each_token_are_refused():
    config = transformers.XLNetConfig(vocab_size=96, d_model=32, n_layer=2, n_head=4, d_inner=32)
    model = transformers.XLNetModel(config)
    with pytest.raises(ActshiftError, match=r"XLNetModel are not of shape \[batch, seq, d\]"), inference(model):
        pass
    mask = torch.ones(2, 3)
    for shape in ((3, 2, 8), (2, 4, 8), (2, 3, 4, 8)):
        with pytest.raises(ActshiftError, match="one vector for each token"):
            unmasked(torch.zeros(shape), {"attention_mask": mask})
