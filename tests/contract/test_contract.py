"""The contract that every adapter fulfils at every site of every architecture."""

from __future__ import annotations

import pytest
import torch

from actshift import attach, load_adapter
from actshift.adapters import ADAPTERS as REGISTERED
from actshift.sites import Positions, find_blocks
from actshift.tuner import prompt_lengths, steering_layers
from tests.contract.cases import ADAPTERS as CASES
from tests.contract.cases import cases, config, fresh_model, randomise, run, steered_model
from tests.zoo import ARCHITECTURES, CAUSAL, ENCODERS, example_inputs, output_of


@cases()
def test_fresh_adapter_is_a_no_op_and_strength_zero_is_the_base(name, adapter, site):
    base = run(fresh_model(name), name)
    model = attach(fresh_model(name), config(adapter, site)).eval()
    assert torch.equal(run(model, name), base)
    randomise(model)
    assert not torch.allclose(run(model, name), base, atol=1e-3)
    with model.strength(0):
        assert torch.equal(run(model, name), base)
    with model.disable_adapter():
        assert torch.equal(run(model, name), base)


@cases()
def test_gradients_reach_every_trainable_tensor_and_nothing_else(name, adapter, site):
    model = steered_model(name, adapter, site).train()  # gates have gradients only in training mode, which samples them
    torch.manual_seed(0)  # building a model draws too, but only if no earlier test has built it
    for _ in range(8 if adapter == "jola" else 1):  # a gate that is sampled as exactly 0 or 1 has no gradient
        output_of(model(**example_inputs(name))).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".lora_steer." in parameter_name), parameter_name
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name
        else:
            assert parameter.grad is None, parameter_name


@cases()
def test_hidden_states_show_the_steered_stream(name, adapter, site):
    model = fresh_model(name)
    plain = _hidden_states(model, name)  # before adapting, so that transformers registers its hooks first
    model = attach(model, config(adapter, site)).eval()
    randomise(model)
    returned = {}

    def store(index):
        return lambda module, args, output: returned.update({index: output[0] if isinstance(output, tuple) else output})

    blocks = find_blocks(model)
    handles = [block.register_forward_hook(store(i)) for i, (_, block) in enumerate(blocks)]
    steered = _hidden_states(model, name)
    for handle in handles:
        handle.remove()
    for before, after in zip(plain, steered, strict=True):
        assert not torch.allclose(before, after, atol=1e-4)
        assert any(torch.equal(after, output) for output in returned.values())


@torch.no_grad()
def _hidden_states(model, name):
    """Return the outputs of all blocks but the last of each stack, which some models report after the final norm."""
    output = model(**example_inputs(name), output_hidden_states=True)
    if name == "t5":
        return [*output.encoder_hidden_states[1:-1], *output.decoder_hidden_states[1:-1]]
    return list(output.hidden_states[1:-1])


@cases()
def test_save_load_and_unload_round_trip(name, adapter, site, tmp_path):
    model = steered_model(name, adapter, site)
    expected = run(model, name)
    model.save_pretrained(tmp_path)
    loaded = load_adapter(fresh_model(name), str(tmp_path), adapter_name="renamed").eval()
    assert torch.equal(run(loaded, name), expected)

    base = fresh_model(name)
    unloaded = loaded.unload()
    assert torch.equal(run(unloaded, name), run(base, name))
    assert [n for n, _ in unloaded.named_modules()] == [n for n, _ in base.named_modules()]
    assert not steering_layers(unloaded)
    assert _hooks(unloaded) == _hooks(base)


def _hooks(model):
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


@cases()
def test_rows_with_different_adapters(name, adapter, site):
    model = steered_model(name, adapter, site)
    model.add_adapter("second", config(adapter, site))
    model.set_adapter("second")
    randomise(model, scale=0.2)
    model.eval()
    base = run(fresh_model(name), name)
    second = run(model, name)
    model.set_adapter("default")
    first = run(model, name)
    for names, expected in (
        (["default", "second"], [first[0], second[1]]),
        (["__base__", "default"], [base[0], first[1]]),
    ):
        mixed = run(model, name, adapter_names=names)
        torch.testing.assert_close(mixed, torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert torch.equal(run(model, name), first)  # the rows leave no state behind


@cases((*CAUSAL, "t5"))
def test_cached_generation_equals_uncached(name, adapter, site):
    model = steered_model(name, adapter, site)
    inputs = {k: v for k, v in example_inputs(name).items() if k != "decoder_input_ids"}
    settings = dict(max_new_tokens=6, do_sample=False)
    cached = model.generate(**inputs, **settings, use_cache=True)
    assert torch.equal(cached, model.generate(**inputs, **settings, use_cache=False))


@pytest.mark.parametrize(
    "positions",
    [
        Positions.ends(2, 1),
        pytest.param(Positions.prompt(), marks=pytest.mark.slow),
        pytest.param(Positions.generated(), marks=pytest.mark.slow),
    ],
    ids=str,
)
@cases(CAUSAL)
def test_positions_in_one_forward_are_those_of_prefill_and_decode(name, adapter, site, positions):
    everywhere, model = steered_model(name, adapter, site), steered_model(name, adapter, site, positions=positions)
    ids = example_inputs(name)["input_ids"]
    settings = dict(max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True)
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    with torch.no_grad(), prompt_lengths(model, [ids.shape[1]] * len(ids)):
        whole = model(output.sequences).logits[:, ids.shape[1] - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), whole, atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(everywhere(output.sequences).logits[:, -1], whole[:, -1], atol=1e-4)


@cases(CAUSAL)
def test_left_padded_batch_equals_single_rows(name, adapter, site):
    model = steered_model(name, adapter, site)
    ids = example_inputs(name)["input_ids"]
    short = ids[1, 3:]
    padded = torch.stack([ids[0], torch.cat([torch.zeros(3, dtype=torch.long), short])])
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    extra = {} if name in ("bloom", "falcon") else {"position_ids": positions}
    with torch.no_grad():
        batch = model(input_ids=padded, attention_mask=mask, **extra).logits[:, -1]
        alone = [model(input_ids=row[None]).logits[0, -1] for row in (ids[0], short)]
    torch.testing.assert_close(batch, torch.stack(alone), atol=2e-5, rtol=1e-4)


@cases()
def test_gradient_checkpointing_gives_equal_gradients(name, adapter, site):
    if not fresh_model(name).supports_gradient_checkpointing:
        pytest.skip(f"{name} does not support gradient checkpointing")
    gradients = []
    for checkpointing in (False, True):
        model = steered_model(name, adapter, site)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        torch.manual_seed(0)  # for adapters that draw
        output_of(model(**example_inputs(name))).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        # T5 sums the gradients of its shared position bias in another order, steered or not.
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=1e-7 if name == "t5" else 0)


def test_every_registered_adapter_is_in_the_contract_tests():
    assert {adapter.kind for adapter in CASES.values()} == set(REGISTERED)


def test_the_zoo_contains_every_supported_architecture():
    supported = "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma2 gemma3 phi3 gpt2 gpt_neox opt falcon bloom olmo2"
    assert {*supported.split(), "t5", *ENCODERS} <= set(ARCHITECTURES)
