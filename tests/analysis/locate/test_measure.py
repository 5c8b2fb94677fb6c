"""Every gain equals the measured loss decrease of an infinitesimal step, and invalid calls are refused."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from actshift import ActshiftError, LowRank, SteeringConfig, Vector, attach, locate
from actshift.gradients import BatchGroup, Tap, backward, linear_maps, tap_host, tap_map
from actshift.sites import resolve
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model
from tests.gradients.parity import batch_of, batches_of, model_of, slope
from tests.zoo import ARCHITECTURES, CAUSAL, ENCODERS, example_inputs

SITES = ("post_block", "post_mlp", "post_attention", "attention_heads")


def gradient(model, batches, host, tap_of):
    """Return G and Σ g at one place."""
    group, tap = BatchGroup(1), Tap("place")
    stats = backward(model, batches, [tap], group, [tap_of(tap, host, group)])
    return tap.matrix.matrix(stats.shares), stats.shares @ tap.vector


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("site", SITES)
def test_a_vectors_gain_is_the_measured_decrease(site, layer):
    model, batches = model_of(), batches_of()
    [place] = locate(model, batches, [site], [layer], weights=False).places
    _, mean = gradient(model, batches, resolve(model, site, [layer])[0], tap_host)
    steered = attach(model, SteeringConfig(adapter=Vector(), site=site, layers=[layer]))
    [shift] = [layer.lora_steer["default"] for layer in steering_layers(steered).values()]

    def move(size):
        with torch.no_grad():
            shift.vector.copy_(-size * mean / mean.norm())

    assert slope(steered, batches, move) == pytest.approx(place.vector_gain.value, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("site", SITES)
def test_a_linear_shifts_gain_is_the_measured_decrease(site, rank):
    model, batches = model_of(), batches_of()
    [place] = locate(model, batches, [site], [1], rank=rank, weights=False).places
    matrix, _ = gradient(model, batches, resolve(model, site, [1])[0], tap_host)
    left, values, right = (factor[..., :rank] for factor in torch.svd(matrix))
    steered = attach(model, SteeringConfig(adapter=LowRank(rank, None), site=site, layers=[1]))
    [shift] = [layer.lora_steer["default"] for layer in steering_layers(steered).values()]

    def move(size):
        with torch.no_grad():
            shift.down.weight.copy_(right.T)
            shift.up.weight.copy_(-size * left * values / values.norm())

    assert slope(steered, batches, move) == pytest.approx(place.gain(rank).value, rel=1e-5)


@pytest.mark.parametrize("part", ["attn.c_attn", "mlp.c_proj"])
def test_loras_gain_is_the_measured_decrease(part):
    model, batches, rank = model_of(), batches_of(), 2
    [place] = [host for host in locate(model, batches, layers=[1], rank=rank).places if host.site == part]
    [linear] = [linear for linear in linear_maps(model, [1]) if linear.part == part]
    matrix, _ = gradient(model, batches, linear.module, tap_map)
    left, values, right = (factor[..., :rank] for factor in torch.svd(matrix))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[f"1.{part}"], fan_in_fan_out=True)
    adapted = get_peft_model(model, config)
    a, b = [parameter for name, parameter in adapted.named_parameters() if "lora_" in name]

    def move(size):
        with torch.no_grad():
            a.copy_(right.T)
            b.copy_(-size * left * values / values.norm())

    assert slope(adapted.double(), batches, move) == pytest.approx(place.gain(rank).value, rel=1e-5)
    assert place.parameters(rank) == a.numel() + b.numel()


def test_no_other_direction_gains_more():
    model, batches = model_of(), batches_of()
    [place] = locate(model, batches, ["post_block"], [1], rank=2, weights=False).places
    steered = attach(model, SteeringConfig(adapter=LowRank(2, None), layers=[1]))
    [shift] = [layer.lora_steer["default"] for layer in steering_layers(steered).values()]
    for _ in range(5):
        torch.nn.init.normal_(shift.down.weight)
        direction = torch.randn_like(shift.up.weight)
        direction /= (direction @ shift.down.weight).norm()

        def move(size, direction=direction):
            with torch.no_grad():
                shift.up.weight.copy_(-size * direction)

        assert abs(slope(steered, batches, move)) < place.gain(2).value


@pytest.mark.parametrize("name", [*CAUSAL, *ENCODERS])
def test_every_architecture_has_gains_at_all_sites(name):
    model, inputs = fresh_model(name), example_inputs(name)
    labels = torch.tensor([1, 2]) if name == "vit" else inputs["input_ids"]
    report = locate(model, [{**inputs, "labels": labels}], rank=2)
    assert report.sites == ("post_block", "post_mlp", "post_attention")
    assert len(report.at("post_block")) == 3
    assert all(place.gain(2).value > 0 for place in report.places if not place.weight)
    assert any(place.weight for place in report.places)
    assert str(report) and report.groups == 1 and report.places[0].gain(1).error is None


def test_an_encoder_decoder_numbers_its_blocks_consecutively():
    model, inputs = fresh_model("t5"), example_inputs("t5")
    report = locate(model, [{**inputs, "labels": inputs.pop("decoder_input_ids")}], rank=2)
    assert [place.layer for place in report.at("post_block")] == [0, 1, 2, 3]


def test_an_unknown_architecture_has_only_the_post_block_site(monkeypatch):
    from actshift.sites import BRANCHES

    monkeypatch.delitem(BRANCHES, "gpt2")
    report = locate(model_of(), batches_of(1), rank=1)
    assert report.sites == ("post_block",)
    assert len(report.left_out) == 2 and "Left out: " in str(report)
    assert report.left_out[0].startswith("Site 'post_mlp' is not known")


def test_a_model_with_lora_is_measured_with_its_lora():
    adapted = get_peft_model(model_of(), LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True))
    bare, wrapped = locate(model_of(), batches_of(1), rank=2), locate(adapted, batches_of(1), rank=2)
    assert [(gain.site, gain.layer) for gain in wrapped.places] == [(gain.site, gain.layer) for gain in bare.places]
    assert wrapped.parameters == bare.parameters  # without LoRA's own
    for with_lora, without in zip(wrapped.places, bare.places, strict=True):
        assert with_lora.gain(2).value == pytest.approx(without.gain(2).value, rel=1e-5)  # a fresh LoRA changes nothing


def test_a_sketched_report_matches_the_exact_one(monkeypatch):
    from actshift.gradients import taps

    model, batches = fresh_model("llama"), [batch_of(8, 30, seed=number) for number in range(2)]
    exact = locate(model, batches, rank=4)
    monkeypatch.setattr(taps.Tap.__init__, "__defaults__", (0,))
    sketched = locate(model, batches, rank=4)
    assert all(place.sketched for place in sketched.places) and "sketched" in str(sketched)
    for estimate, truth in zip(sketched.places, exact.places, strict=True):
        assert estimate.gain(4).value == pytest.approx(truth.gain(4).value, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number"),
        ({"rank": 33}, r"(?i)rank 33 is above"),
        ({"sites": ["post_blok"]}, "did you mean 'post_block'"),
        ({"sites": []}, "at least one site"),
        ({"sites": "post_block"}, "must be a list"),
        ({"sites": ["post_mlp", "post_mlp"]}, "each once"),
        ({"layers": [3]}, "out of range"),
        ({"batches": []}, "There are no batches"),
    ],
)
def test_invalid_calls_name_the_allowed_values(options, message):
    with pytest.raises(ActshiftError, match=message):
        locate(model_of(), **{"batches": batches_of(1), **options})


def test_a_rank_above_the_sketch_is_refused(monkeypatch):
    from actshift.gradients import taps

    monkeypatch.setattr(taps.Tap.__init__, "__defaults__", (0,))
    wide = ARCHITECTURES["gpt2"](n_embd=64)
    with pytest.raises(ActshiftError, match=r"Rank 33 is too high for post_block of block 0.*64 × 64.*up to 32"):
        locate(wide, batches_of(1), rank=33)
