"""The calibrated strength against an independent computation of the KL divergence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift import ActshiftError, LowRank, SteeringConfig, Vector, attach, calibrate, contrast, load_adapter, strength
from actshift.adapters import ADAPTERS, HeadAdapter
from actshift.demo import load_base
from actshift.evaluation.calibrate import Divergence, Measurement, _search, kl_divergence
from actshift.sites import Positions
from actshift.tuner import steering_layers
from tests.contract.cases import fresh_model, randomise, steered_model
from tests.tiny import word_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:The 95th percentile")
TOKENIZER = word_tokenizer()
PROMPTS = [f"w{i} w{i + 3} w{2 * i}" + " w5" * (i % 4) for i in range(10)]
CALLED = ("nonlinear", "ablation", "gated_vector", "jola")
FAST = ("vector", "gated_vector")
NOUNS = ["cats", "keys", "books"]
ENGLISH = [f"anna has {n} {noun} ." for n in ("three", "seven", "nine", "ten") for noun in NOUNS]
FRENCH = [f"anna a {n} {noun} ." for n in ("trois", "sept", "neuf", "dix") for noun in ("chats", "clés", "livres")]


@torch.no_grad()
def measured(model, s: float, prompts=PROMPTS, tokenizer=TOKENIZER, batch_size: int = 5) -> Divergence:
    return Measurement(model, tokenizer, prompts, 8, batch_size, "default", lambda *_: None)(s)


def strengths(model) -> set[float]:
    return {layer.strength["default"] for layer in steering_layers(model).values()}


@torch.no_grad()
def kl_by_hand(model, s: float, prompts, steps: int = 8) -> list[float]:
    """Decode each prompt alone, without a cache, and sum p · log(p / q) in float64 with numpy."""
    values = []
    for prompt in prompts:
        ids = TOKENIZER(prompt, return_tensors="pt")["input_ids"]
        for _ in range(steps):
            with strength(model, s):
                steered = model(ids).logits[0, -1].double().numpy()
            with model.disable_adapter():
                base = model(ids).logits[0, -1].double().numpy()
            p, q = (np.exp(each - each.max()) / np.exp(each - each.max()).sum() for each in (steered, base))
            values.append(float((p * np.log(p / q)).sum()))
            ids = torch.cat([ids, torch.tensor([[int(steered.argmax())]])], dim=1)
            if ids[0, -1] == TOKENIZER.eos_token_id:
                break
    return values


@pytest.mark.parametrize("adapter", ["vector", *(pytest.param(kind, marks=pytest.mark.slow) for kind in CALLED)])
def test_the_measure_is_the_percentile_along_greedy_completions(adapter):
    site = "attention_heads" if adapter == "jola" else "post_block"
    model, s = steered_model("llama", adapter, site), 1.5
    expected, point = kl_by_hand(model, s, PROMPTS[:4]), measured(model, s, PROMPTS[:4], batch_size=3)
    assert point.tokens == len(expected)
    assert point.kl == pytest.approx(np.percentile(expected, 95), rel=1e-3, abs=1e-6)
    assert point.mean_kl == pytest.approx(np.mean(expected), rel=1e-3, abs=1e-6)
    assert measured(model, 0.0).kl == 0


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in sorted(ADAPTERS)]
)
def test_every_adapter_reaches_the_target_and_its_strength_is_loaded(kind, tmp_path):
    site = "attention_heads" if issubclass(ADAPTERS[kind], HeadAdapter) else "post_block"
    model = attach(fresh_model("llama"), SteeringConfig(adapter=ADAPTERS[kind](), site=site)).eval()
    randomise(model, 0.1)
    result = calibrate(model, PROMPTS, 0.02, TOKENIZER, max_new_tokens=8)
    found = result.found
    assert found.kl == pytest.approx(0.02, rel=0.05)
    assert found in result.tried and measured(model, found.strength, batch_size=8) == found
    assert strengths(model) == {found.strength}
    model.save_pretrained(str(tmp_path))
    assert strengths(load_adapter(fresh_model("llama"), str(tmp_path))) == {found.strength}


@pytest.mark.parametrize("positions", [Positions.prompt(), Positions.generated(), Positions.last_token()], ids=str)
def test_positions_act_as_in_generation(positions):
    model = attach(fresh_model("llama"), SteeringConfig(adapter=Vector(), positions=positions)).eval()
    randomise(model)
    [prompt], inputs = PROMPTS[3:4], TOKENIZER(PROMPTS[3], return_tensors="pt")
    how = dict(max_new_tokens=8, do_sample=False, return_dict_in_generate=True, output_logits=True)
    outputs = model.generate(input_ids=inputs["input_ids"], **how)
    with torch.no_grad(), model.disable_adapter():
        base = model(outputs.sequences).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
    expected = kl_divergence(torch.cat(outputs.logits), base)
    assert measured(model, 1.0, [prompt]).mean_kl == pytest.approx(expected.mean().item(), rel=1e-3)


@pytest.mark.slow
def test_a_contrast_vector_on_the_demo_model_grows_with_strength_and_hits_its_target():
    base, tokenizer = load_base()
    steered = contrast(base, tokenizer, FRENCH, ENGLISH).attach(base)
    points = [measured(steered, s, ENGLISH, tokenizer).kl for s in (0, 0.5, 1)]
    assert points == sorted(points) and points[0] == 0 < points[1]
    first = calibrate(steered.train(), ENGLISH, 0.5, tokenizer, max_new_tokens=8)
    assert first.found.kl == pytest.approx(0.5, rel=0.05) and steered.training
    assert calibrate(steered, ENGLISH, 0.5, max_new_tokens=8) == first  # with the tokenizer that the config names


@settings(max_examples=20)
@given(scale=st.floats(1e-3, 1e3), power=st.floats(0.5, 4), target=st.floats(1e-3, 5))
def test_the_search_finds_any_smooth_crossing_in_few_steps(scale, power, target):
    asked = []

    def measure(s: float) -> Divergence:
        asked.append(s)
        return Divergence(s, 6 * -math.expm1(-((s / scale) ** power)), 0, 100)  # saturates at 6 nats

    expected = scale * (-math.log1p(-target / 6)) ** (1 / power)
    if 1e-3 < expected < 1e3:
        assert _search(measure, target).kl == pytest.approx(target, rel=0.051)
        assert len(asked) <= 22


def test_a_jump_and_a_kl_that_falls_are_warned_about(monkeypatch):
    model = steered_model("llama", "vector", "post_block")

    def calibrated(kl):
        measure = lambda self, s: self.tried.setdefault(s, Divergence(s, kl(s), 0, 99))  # noqa: E731
        monkeypatch.setattr(Measurement, "__call__", measure)
        return calibrate(model, PROMPTS, 1.0, TOKENIZER).found

    with pytest.warns(UserWarning, match=r"jumps over 1 nats near strength 2\.[79].*it is 0\.5 there"):
        assert calibrated(lambda s: 0.5 if s < 3 else 7).kl == 0.5
    with pytest.warns(UserWarning, match="not monotone in the strength: it is 0.9 nats at 2 and 0.4 at 4"):
        calibrated(lambda s: {1: 0.2, 2: 0.9, 4: 0.4, 8: 1.0}[s])
    with pytest.warns(UserWarning, match="of 99 tokens only"):
        calibrated(lambda s: s)


def test_what_cannot_be_calibrated_is_refused_and_changes_nothing():
    model = steered_model("llama", "vector", "post_block")
    before = strengths(model)

    def refused(match: str, model=model, prompts=PROMPTS[:2], target=1.0, **options):
        with pytest.raises(ActshiftError, match=match):
            calibrate(model, prompts, target, TOKENIZER, max_new_tokens=1, **options)

    refused("target_kl must be a positive number", target=0)
    refused("target_kl must be a positive number", target=float("nan"))
    refused("prompts must be a list", prompts=[])
    refused("prompts must be a list", prompts="w1 w2")
    refused("batch_size must be", batch_size=0)
    refused("no active adapter 'other'", adapter_name="other")
    refused(r"No strength up to 4096 reaches a KL of 1e\+06 nats", target=1e6)
    refused("no active steering adapter", model=fresh_model("llama"))
    refused("has no effect at any strength", model=attach(fresh_model("llama"), SteeringConfig(adapter=Vector())))
    refused("has an encoder", model=steered_model("t5", "vector", "post_block"))
    refused("writes no text", model=steered_model("bert", "vector", "post_block"))
    assert strengths(model) == before and model.peft_config["default"].strength == 1
    with torch.no_grad():
        next(iter(steering_layers(model).values())).lora_steer["default"].vector.fill_(1e38)
    refused("not finite at strength")
    two = steered_model("llama", "vector", "post_block")
    two.add_adapter("second", SteeringConfig(adapter=LowRank(rank=2)))
    two.base_model.set_adapter(["default", "second"])
    refused("several active adapters, default, second", model=two)


def test_the_strength_of_a_config_is_saved_only_if_it_is_not_1_and_invalid_ones_are_refused(tmp_path):
    assert "strength" not in SteeringConfig().to_dict()
    assert SteeringConfig(**SteeringConfig(strength=4).to_dict()).strength == 4
    for bad in ("4", None, float("inf"), True):
        with pytest.raises(ActshiftError, match="strength must be a finite number"):
            SteeringConfig(strength=bad)
