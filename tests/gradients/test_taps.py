"""Taps sum the exact gradient of the mean loss, at every site and linear map."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach
from actshift.gradients import BatchGroup, Tap, backward, linear_maps, tap_map
from actshift.sites import SITES, resolve
from tests.contract.cases import randomise
from tests.gradients.parity import batch_of, batches_of, loss_over, matrices, mean_loss, model_of, padded, run_tapped
from tests.zoo import ARCHITECTURES, CAUSAL

ALL_SITES = tuple(SITES)


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # GPT-2's Conv1D stores its weight transposed
def test_tap_at_a_linear_map_equals_autograds_weight_gradient(name):
    model, batches = model_of(name), batches_of()
    maps = linear_maps(model)
    gradients = torch.autograd.grad(loss_over(model, batches), [linear.module.weight for linear in maps])
    batch_group, taps = BatchGroup(1), [Tap(linear.name) for linear in maps]
    handles = [tap_map(tap, linear.module, batch_group) for tap, linear in zip(taps, maps, strict=True)]
    stats = backward(model, batches, taps, batch_group, handles)
    assert stats.loss == pytest.approx(mean_loss(model, batches), rel=1e-6)
    for tapped, gradient in zip(matrices(stats, taps), gradients, strict=True):
        assert torch.allclose(tapped if name == "llama" else tapped.T, gradient, atol=1e-8)


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize("name", CAUSAL)
def test_tap_at_a_site_equals_the_gradient_of_a_linear_shift(name, site):
    """For h ← h + D h at D = 0, autograd's gradient with respect to D is Σ g xᵀ."""
    model, batches = ARCHITECTURES[name](), batches_of(2)
    hosts = resolve(model, site)
    shifts = [torch.zeros(host.width, host.width, requires_grad=True) for host in hosts]

    def at_output(shift):
        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden + hidden.detach() @ shift.T
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    def at_input(shift):
        return lambda module, args: (args[0] + args[0].detach() @ shift.T, *args[1:])

    handles = [
        host.module.register_forward_pre_hook(at_input(shift))
        if host.at_input
        else host.module.register_forward_hook(at_output(shift))
        for host, shift in zip(hosts, shifts, strict=True)
    ]
    gradients = torch.autograd.grad(loss_over(model, batches), shifts)
    for handle in handles:
        handle.remove()
    for tapped, gradient in zip(matrices(*run_tapped(model, batches, site)), gradients, strict=True):
        assert gradient.abs().max() > 0
        assert torch.allclose(tapped, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize(("left", "right"), [(0, 4), (3, 0)])
@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon"])
def test_padding_does_not_change_the_sums(name, left, right, site):
    model, batch = ARCHITECTURES[name](), batch_of()  # in float32: Gemma-2's mask overflows in float64
    if left:  # as in generate: without explicit positions, left padding would shift the other tokens
        positions = torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape)
        wider = padded(batch, left, 0) | {"position_ids": torch.nn.functional.pad(positions, (left, 0))}
    else:
        wider = padded(batch, 0, right)
    plain, with_padding = (matrices(*run_tapped(model, [one], site)) for one in (batch, wider))
    for matrix, other in zip(plain, with_padding, strict=True):
        assert torch.allclose(matrix, other, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("site", ["post_block", "post_mlp"])
def test_gradient_checkpointing_does_not_change_the_sums(site, reentrant):
    model, batches = model_of(), batches_of(2)
    plain = matrices(*run_tapped(model, batches, site))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()  # re-entrant checkpoints require it of every caller
    for matrix, other in zip(plain, matrices(*run_tapped(model, batches, site)), strict=True):
        assert torch.allclose(matrix, other, atol=1e-8)


def test_an_attached_adapter_is_part_of_the_tapped_model():
    batches = batches_of(1)
    model = attach(model_of(), SteeringConfig(rank=2))
    randomise(model)
    stats, taps = run_tapped(model, batches)
    assert stats.loss == pytest.approx(mean_loss(model, batches), rel=1e-6)
    with model.disable_adapter():
        base, base_taps = run_tapped(model, batches)
    assert base.loss == pytest.approx(run_tapped(model_of(), batches)[0].loss, rel=1e-6)
    assert not torch.allclose(taps[0].matrix.sums, base_taps[0].matrix.sums)


def test_bfloat16_gradients_are_summed_in_float32():
    stats, taps = run_tapped(model_of().bfloat16(), batches_of(2))
    assert taps[0].matrix.sums.dtype == torch.float32
    exact = matrices(*run_tapped(model_of(), batches_of(2)))[0]
    rounded = matrices(stats, taps)[0].double()
    assert torch.nn.functional.cosine_similarity(rounded.flatten(), exact.flatten(), 0) > 0.99


def test_gradients_that_overflow_with_a_finite_loss_are_reported():
    tap = Tap("post_mlp of block 2")
    tap.watch(torch.ones(3, 4).half(), y := torch.ones(3, 4).half().requires_grad_(), BatchGroup(1))
    (y.sum() * 6e4 * 2).backward()
    with pytest.raises(ActshiftError, match="The gradients at post_mlp of block 2 are not finite"):
        tap.check()
