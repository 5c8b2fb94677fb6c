from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from actshift import ActshiftError, LowRank, SteeringConfig, attach
from actshift.analysis.capture import capture_calls
from actshift.analysis.equivalence import equivalence, update_between
from actshift.analysis.equivalence.branch import branches_of
from actshift.sites import mlp_entry
from tests.analysis.twins import HALF, batches, disjoint, left_multiplied, moved
from tests.zoo import ARCHITECTURES, WIDTH

SMOOTH = ("llama", "gpt2", "gemma2", "phi3", "gpt_neox", "falcon", "olmo2", "mixtral")


def _double(name: str = "llama", **overrides):
    return ARCHITECTURES[name](**overrides).double()


@pytest.mark.parametrize("name", SMOOTH)
def test_the_remainder_falls_with_the_square_of_the_scale(name: str) -> None:
    base = ARCHITECTURES[name]()
    report = equivalence(base, moved(base), batches(name), ranks=(1,))
    for layer in report.layers:
        for branch in (layer.attention, layer.mlp):
            assert branch is not None and branch.slope is not None
            assert abs(branch.slope - 2) < 0.1
            assert branch.relative[0] < 0.01 < branch.share


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "gpt_neox"])
def test_the_remainder_of_steering_before_the_mlp_falls_with_the_square_too(name: str) -> None:
    base = ARCHITECTURES[name]()
    for layer in equivalence(base, moved(base), batches(name), ranks=(1,)).layers:
        assert layer.steering is not None and layer.steering.slope is not None
        assert abs(layer.steering.slope - 2) < 0.1


def test_the_first_order_of_a_glu_matches_equation_1() -> None:
    base = _double()
    update = update_between(base, moved(base, part="mlp")).below("model.layers.1")
    block = base.model.layers[1]
    with torch.no_grad():
        [call, inner] = capture_calls(base, batches()[0], [block, block.mlp])
        weights = dict(block.named_parameters())
        branch = branches_of(block, block.self_attn, block.mlp, call, weights)["mlp"]
        shift = branch.first_order(call, weights, update)
        x, mlp = inner.args[0], block.mlp
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        slope = torch.sigmoid(gate) * (1 + gate * (1 - torch.sigmoid(gate)))
        inside = slope * up * (x @ update["mlp.gate_proj.weight"].T) + F.silu(gate) * (
            x @ update["mlp.up_proj.weight"].T
        )
        expected = mlp.down_proj(inside) + (F.silu(gate) * up) @ update["mlp.down_proj.weight"].T
    torch.testing.assert_close(shift, expected, rtol=1e-10, atol=1e-12)


def _thin_mlp():
    """Return a model with gate and up maps of rank 2, whose A(x) has rank 4 of 32."""
    base = _double()
    with torch.no_grad():
        for block in base.model.layers:
            for linear in (block.mlp.gate_proj, block.mlp.up_proj):
                linear.weight.copy_(linear.weight[:, :2] @ torch.randn(2, WIDTH).double() / 4)
    return base


def test_an_update_that_equals_a_shift_of_the_input_is_reachable() -> None:
    base = _thin_mlp()
    twin = deepcopy(base)
    with torch.no_grad():
        for block in twin.model.layers:
            common = 0.1 * torch.randn(WIDTH, WIDTH).double()
            for linear in (block.mlp.gate_proj, block.mlp.up_proj):
                linear.weight.add_(linear.weight @ common)  # ΔW_g x = W_g Δx and ΔW_u x = W_u Δx, with Δx = K x
    for layer in equivalence(base, twin, batches(), ranks=(1,)).layers:
        assert layer.pre_mlp == pytest.approx(1, abs=1e-9)
    for layer in equivalence(base, moved(base, part="gate_proj"), batches(), ranks=(1,)).layers:
        assert layer.pre_mlp is not None and layer.pre_mlp < 0.9


def test_directions_that_the_mlp_cannot_write_are_unreachable() -> None:
    base = _double(intermediate_size=8)
    twin = deepcopy(base)
    with torch.no_grad():
        for block in twin.model.layers:
            basis = torch.linalg.qr(block.mlp.down_proj.weight).Q
            noise = torch.randn(WIDTH, 8).double()
            block.mlp.down_proj.weight.add_(noise - basis @ (basis.T @ noise))
    for layer in equivalence(base, twin, batches(), ranks=(1,)).layers:
        assert layer.pre_mlp == pytest.approx(0, abs=1e-9)
        assert layer.mlp is not None and layer.mlp.slope is None  # linear in ΔW_d, so there is no remainder


def test_with_a_zero_mlp_post_mlp_copies_a_constant_and_post_block_everything() -> None:
    base = disjoint(silent_mlp=True)
    twin = left_multiplied(base, "model.layers.0.self_attn.o_proj.weight")
    [layer] = equivalence(base, twin, batches(count=8, batch=6), ranks=(1, 2)).layers
    assert layer.post_mlp is not None
    assert layer.post_mlp[2] == pytest.approx(layer.post_mlp[0], abs=1e-12)
    assert layer.post_mlp[2] < 0.5
    assert layer.post_block[2] == pytest.approx(1, abs=1e-9)
    assert layer.skip_share == 1


def test_post_block_equals_post_mlp_if_skip_and_mlp_are_disjoint() -> None:
    base = disjoint()
    twin = left_multiplied(base, "model.layers.0.mlp.down_proj.weight", rank=3)
    [layer] = equivalence(base, twin, batches(count=8, batch=6), ranks=(1, 2, 3)).layers
    assert layer.post_mlp is not None
    assert layer.post_block == pytest.approx(layer.post_mlp, abs=1e-3)  # each site has its own ridge
    assert layer.post_block[1] < layer.post_block[2] < 0.999
    assert layer.post_block[3] == pytest.approx(1, abs=1e-9) == layer.post_mlp[3]


def test_a_post_mlp_adapter_equals_a_post_block_one_if_skip_and_mlp_are_disjoint() -> None:
    inputs, logits = batches()[0], []
    projector = torch.diag(torch.arange(WIDTH) >= HALF).double()
    for site in ("post_mlp", "post_block"):
        torch.manual_seed(0)
        model = attach(disjoint(), SteeringConfig(adapter=LowRank(rank=3, activation=None), site=site))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_steer" in name:
                    parameter.copy_(torch.randn(parameter.shape))
                    if site == "post_block" and "down" in name:
                        parameter.copy_(parameter @ projector)
            logits.append(model(**inputs).logits)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-12)


def test_both_models_are_restored() -> None:
    base = ARCHITECTURES["qwen3_moe"]().train()
    twin, before = moved(base), {name: p.clone() for name, p in base.named_parameters()}
    experts = base.config._experts_implementation
    equivalence(base, twin, batches("qwen3_moe"), ranks=(1,))
    assert base.training and base.config._experts_implementation == experts
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in base.named_parameters())


def test_a_report_prints_draws_and_converts_to_json(tmp_path) -> None:
    import json

    base = ARCHITECTURES["llama"]()
    report = equivalence(base, moved(base), batches(), ranks=(1, 2), layers=[0, 2])
    assert "affine map of rank 2" in str(report) and "embed_tokens" in str(report)
    stored = json.loads(json.dumps(report.to_dict()))
    assert [layer["layer"] for layer in stored["layers"]] == [0, 2]
    assert stored["layers"][0]["mlp"]["slope"] == pytest.approx(2, abs=0.1)
    report.figure().savefig(tmp_path / "report.png")


def test_padding_does_not_change_the_report() -> None:
    base = ARCHITECTURES["llama"]()
    twin, whole = moved(base), batches(count=1, batch=6)
    padded = [{name: F.pad(value, (0, 5)) for name, value in batch.items()} for batch in whole]
    plain, with_padding = (equivalence(base, twin, rows, ranks=(1,)) for rows in (whole, padded))
    assert plain.tokens == with_padding.tokens
    for a, b in zip(plain.layers, with_padding.layers, strict=True):
        assert a.mlp is not None and b.mlp is not None
        assert a.mlp.left == pytest.approx(b.mlp.left, rel=1e-3)
        assert a.post_block == pytest.approx(b.post_block, abs=1e-3)
        assert a.pre_mlp == pytest.approx(b.pre_mlp)


def test_a_state_dict_gives_the_same_report_as_a_model() -> None:
    base = ARCHITECTURES["llama"]()
    twin = moved(base)
    assert equivalence(base, twin.state_dict(), batches(), ranks=(1,)) == equivalence(base, twin, batches(), ranks=(1,))


def test_the_module_that_takes_the_mlps_input_is_found() -> None:
    entries = {name: type(mlp_entry(ARCHITECTURES[name](), 0)).__name__ for name in ("llama", "opt", "bert", "mixtral")}
    assert entries == {
        "llama": "LlamaMLP",
        "opt": "Linear",
        "bert": "BertIntermediate",
        "mixtral": "MixtralSparseMoeBlock",
    }


@pytest.mark.parametrize(
    ("twin", "rows", "message"),
    [
        (lambda base: ARCHITECTURES["llama"](hidden_size=16), batches(), "the same size"),
        (lambda base: ARCHITECTURES["gpt2"](), batches(), "one architecture"),
        (lambda base: ARCHITECTURES["llama"](num_hidden_layers=4), batches(), "model.layers.3"),
        (lambda base: deepcopy(base), batches(), "the same weights"),
        (moved, [], "(?i)no rows"),
        (moved, batches(count=1, batch=1, seq=1), r"(?i)\b1 (token )?in 1\b"),
        (lambda base: moved(base, scale=float("inf")), batches(), "not finite"),
    ],
)
def test_models_that_cannot_be_compared_give_an_error_of_one_line(twin, rows, message: str) -> None:
    base = ARCHITECTURES["llama"]()
    with pytest.raises(ActshiftError, match=message) as error:
        equivalence(base, twin(base), rows)
    assert "\n" not in str(error.value)


def test_an_overflow_in_half_precision_is_refused() -> None:
    base = ARCHITECTURES["llama"]().half()
    with torch.no_grad():
        base.model.layers[1].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(ActshiftError, match=r"Block 1 returns values that are not finite.*float32 or bfloat16"):
        equivalence(base, moved(base, part="self_attn"), batches())
