"""What the taps hold is the gradient of the mean loss, and the model is as it was."""

from __future__ import annotations

import pytest
import torch

from actshift import ActshiftError, SteeringConfig, attach
from actshift.gradients import BackwardStats, BatchGroup, Tap, backward, linear_maps, tap_host, tap_map
from actshift.sites import SITES, resolve
from tests.contract.cases import randomise
from tests.gradients.parity import batch_of, batches_of, mean_loss, model_of
from tests.zoo import ARCHITECTURES, CAUSAL, example_inputs

ALL_SITES = tuple(SITES)


def run(model, batches, site="post_block", groups=1, **options) -> tuple[BackwardStats, list[Tap]]:
    clock, hosts = BatchGroup(groups), resolve(model, site)
    taps = [Tap(host.name, **options) for host in hosts]
    handles = [tap_host(tap, host, clock) for tap, host in zip(taps, hosts, strict=True)]
    return backward(model, batches, taps, clock, handles), taps


def matrices(seen: BackwardStats, taps: list[Tap]) -> list[torch.Tensor]:
    return [tap.matrix.matrix(seen.shares) for tap in taps]


def loss_over(model, batches) -> torch.Tensor:
    counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
    return sum(count * model(**one).loss for count, one in zip(counts, batches, strict=True)) / sum(counts)


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # GPT-2's Conv1D stores its weight transposed
def test_at_a_weight_it_is_autograds_own(name):
    model, batches = model_of(name), batches_of()
    loss = loss_over(model, batches)
    maps = linear_maps(model)
    gradients = torch.autograd.grad(loss, [one.module.weight for one in maps])
    clock, taps = BatchGroup(1), [Tap(one.name) for one in maps]
    seen = backward(
        model, batches, taps, clock, [tap_map(tap, one.module, clock) for tap, one in zip(taps, maps, strict=True)]
    )
    assert seen.loss == pytest.approx(mean_loss(model, batches), rel=1e-6)
    for found, gradient in zip(matrices(seen, taps), gradients, strict=True):
        assert torch.allclose(found if name == "llama" else found.T, gradient, atol=1e-8)


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize("name", CAUSAL)
def test_at_a_site_it_is_the_gradient_of_a_linear_shift(name, site):
    """h ← h + D h with D = 0: autograd's gradient by D is Σ g xᵀ."""
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
    for found, gradient in zip(matrices(*run(model, batches, site)), gradients, strict=True):
        assert gradient.abs().max() > 0
        assert torch.allclose(found, gradient, rtol=1e-4, atol=1e-5)


def padded(batch: dict[str, torch.Tensor], left: int, right: int) -> dict[str, torch.Tensor]:
    """The same rows with padding, whose id is a token like any other."""
    fill = {"input_ids": 5, "attention_mask": 0, "labels": -100}
    return {name: torch.nn.functional.pad(value, (left, right), value=fill[name]) for name, value in batch.items()}


@pytest.mark.parametrize("site", ALL_SITES)
@pytest.mark.parametrize(("left", "right"), [(0, 4), (3, 0)])
@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon"])
def test_padding_adds_nothing(name, left, right, site):
    model, batch = ARCHITECTURES[name](), batch_of()  # in float32: Gemma-2's mask overflows in float64
    if left:  # as generate does; without positions of their own padded tokens would shift the others
        places = torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape)
        wider = padded(batch, left, 0) | {"position_ids": torch.nn.functional.pad(places, (left, 0))}
    else:
        wider = padded(batch, 0, right)
    for bare, with_padding in zip(
        matrices(*run(model, [batch], site)), matrices(*run(model, [wider], site)), strict=True
    ):
        assert torch.allclose(bare, with_padding, atol=1e-5)


def test_groups_left_out_are_means_over_the_rest():
    model, batches = model_of(), batches_of(3)
    seen, taps = run(model, batches, groups=3)
    for group, shares in enumerate(seen.without()):
        rest, of_rest = run(model, [batch for number, batch in enumerate(batches) if number != group])
        assert torch.allclose(taps[0].matrix.matrix(shares), of_rest[0].matrix.matrix(rest.shares), atol=1e-8)


def test_the_model_is_left_as_it_was():
    model = model_of().train()
    model.transformer.h[1].eval()
    model.lm_head.weight.requires_grad_(False)
    model.transformer.ln_f.weight.grad = kept = torch.ones_like(model.transformer.ln_f.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    for batches in (batches_of(1), [{"input_ids": torch.ones(1, 3, dtype=torch.long)}]):
        try:
            run(model, batches)
        except ActshiftError as error:
            assert "no labels" in str(error)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert model.transformer.ln_f.weight.grad is kept and kept.eq(1).all()
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("site", ["post_block", "post_mlp"])
def test_checkpointing_changes_nothing(site, reentrant):
    model, batches = model_of(), batches_of(2)
    plain = matrices(*run(model, batches, site))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()  # what re-entrant checkpoints ask of every caller
    for one, other in zip(plain, matrices(*run(model, batches, site)), strict=True):
        assert torch.allclose(one, other, atol=1e-8)


def test_a_steered_model_is_looked_at_as_it_is():
    batches = batches_of(1)
    model = attach(model_of(), SteeringConfig(rank=2))
    randomise(model)
    seen, taps = run(model, batches)
    assert seen.loss == pytest.approx(mean_loss(model, batches), rel=1e-6)
    with model.disable_adapter():
        base, base_taps = run(model, batches)
    assert base.loss == pytest.approx(run(model_of(), batches)[0].loss, rel=1e-6)
    assert not torch.allclose(taps[0].matrix.sums, base_taps[0].matrix.sums)


def test_bfloat16_is_summed_in_float32():
    seen, taps = run(model_of().bfloat16(), batches_of(2))
    assert taps[0].matrix.sums.dtype == torch.float32
    exact = matrices(*run(model_of(), batches_of(2)))[0]
    assert torch.nn.functional.cosine_similarity(matrices(seen, taps)[0].flatten().double(), exact.flatten(), 0) > 0.99


def test_an_encoder_counts_its_labels():
    model = ARCHITECTURES["bert"]().double()
    inputs = example_inputs("bert")
    labels = inputs["input_ids"].clone()
    labels[:, 2:] = -100
    seen, _ = run(model, [{**inputs, "labels": labels}])
    assert seen.targets == (4,)
    vision = ARCHITECTURES["vit"]().double()
    pixels = {name: value.double() for name, value in example_inputs("vit").items()}
    assert run(vision, [{**pixels, "labels": torch.tensor([1, 2])}])[0].targets == (2,)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "There are no batches"),
        ([{"input_ids": torch.tensor([[5]]), "labels": torch.tensor([[5]])}], "no token to predict"),
        ([{"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[5, -100]])}], "no token to predict"),
        ([{"input_ids": torch.tensor([[5, 6]])}], "no labels"),
    ],
)
def test_data_without_a_target_is_refused(batches, message):
    with pytest.raises(ActshiftError, match=message):
        run(model_of(), batches)


def test_zero_gradients_are_refused():
    model = model_of()
    torch.nn.init.zeros_(model.lm_head.weight)
    with pytest.raises(ActshiftError, match="Every gradient is zero"):
        run(model, batches_of(1))


def test_an_overflow_is_told():
    model = model_of().half()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight.fill_(6e4)
    with pytest.raises(ActshiftError, match=r"overflows the range of its dtype.*load it in float32"):
        run(model, batches_of(1))


def test_gradients_that_overflow_where_the_loss_does_not_are_told():
    tap = Tap("post_mlp of block 2")
    tap.watch(torch.ones(3, 4).half(), y := torch.ones(3, 4).half().requires_grad_(), BatchGroup(1))
    (y.sum() * 6e4 * 2).backward()
    with pytest.raises(ActshiftError, match="The gradients at post_mlp of block 2 are not finite"):
        tap.check()
