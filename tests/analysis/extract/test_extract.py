from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch

from actshift import ActshiftError, attach, load_adapter
from actshift.analysis.extract import LayerFit, ModelPair, check_same_tokenizer, extract, oracle
from actshift.analysis.extract.distill import validation_kl
from actshift.analysis.extract.extract import UNFINISHED
from actshift.analysis.extract.fit import config_for, fit_layers, ranks_within
from actshift.analysis.extract.model_pair import logits
from tests.analysis.twins import batches, disjoint, left_multiplied, moved
from tests.tiny import word_tokenizer
from tests.zoo import ARCHITECTURES, WIDTH

FAST = {"nonlinear_steps": 0, "linear": False, "ranks": (1, 2, 4)}
TEXT = batches(count=6, batch=6, seq=12)


def _blocks_moved(name: str = "llama"):
    base = ARCHITECTURES[name]()
    return base, moved(base, scale=0.1, part="layers." if name != "gpt2" else ".h.")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "falcon", "gpt_neox", "mixtral"])
def test_the_oracle_gives_the_fine_tuned_models_logits(name: str) -> None:
    base = ARCHITECTURES[name]()
    twin = moved(base, scale=0.1, part=".h." if name in ("gpt2", "falcon") else "layers.")
    twins, sizes = ModelPair.of(base, twin), []
    with torch.no_grad():
        for batch in batches(name):
            steered = twins.oracle_logits(batch, lambda layer, x, shift: sizes.append(shift.norm()))
            torch.testing.assert_close(steered, logits(twin, batch), rtol=0, atol=1e-6)
            assert (logits(base, batch) - logits(twin, batch)).abs().max() > 0.1
    assert len(sizes) == 2 * len(twins.blocks) and all(size > 0 for size in sizes)


def test_what_changed_outside_the_blocks_is_named_and_the_oracles_distance_shows_it() -> None:
    base = ARCHITECTURES["llama"]()
    whole = oracle(ModelPair.of(base, moved(base, 0.3)), TEXT, (1, 4), 1, steps=0)
    assert "lm_head.weight" in whole.outside and whole.kl_oracle > 1e-3
    inside = oracle(ModelPair.of(*_blocks_moved()), TEXT, (1, 4), 1, steps=0)
    assert inside.outside == () and inside.kl_oracle < 1e-9 < inside.kl_base


def test_a_shift_that_is_linear_is_recovered_at_its_rank() -> None:
    base = disjoint()
    twin = left_multiplied(base, "model.layers.0.mlp.down_proj.weight", rank=2)
    report = extract(base, twin, TEXT, rank=2, **FAST).report
    assert report.kl["base"] > 1e-2
    assert report.kl["closed_form"] < 1e-6
    assert report.layers[0].r2 == pytest.approx(1, abs=1e-6)
    [layer] = report.oracle.layers
    assert layer.r2[2] == pytest.approx(1, abs=1e-6) and layer.r2[1] < 0.99
    assert layer.energy[2] == pytest.approx(1)


def test_a_higher_rank_and_a_distillation_come_closer() -> None:
    found = {}
    for rank, steps in ((1, 0), (8, 0), (8, 60)):
        found[rank, steps] = extract(*_blocks_moved("gpt2"), TEXT, rank=rank, distill_steps=steps, **FAST).report.kl
    assert found[8, 0]["closed_form"] < found[1, 0]["closed_form"] < found[1, 0]["base"]
    assert found[8, 60]["distilled"] < found[8, 60]["closed_form"] == pytest.approx(found[8, 0]["closed_form"])


def test_a_nonlinear_map_begins_as_the_linear_one_and_gets_closer() -> None:
    twins = ModelPair.of(*_blocks_moved("gpt2"))
    short, longer = (oracle(twins, TEXT, (4,), 4, steps=steps) for steps in (1, 200))
    for one, other in zip(short.layers, longer.layers, strict=True):
        assert one.r2_nonlinear == pytest.approx(one.r2[4], abs=0.1)
        assert other.r2_nonlinear is not None and other.r2_nonlinear > one.r2[4] - 0.05


def test_each_layer_is_fitted_on_the_stream_that_is_steered_already() -> None:
    """With every layer but the last exact, the last one's regression sees the fine-tuned model's own stream."""
    base, twin = _blocks_moved()
    with torch.no_grad():  # only the second block changed, so the first adapter has nothing to do
        twin.model.layers[0].load_state_dict(base.model.layers[0].state_dict())
    report = extract(base, twin, TEXT, rank=4, **FAST).report
    assert report.layers[0].r2 == 0
    assert report.layers[1].r2 == pytest.approx(report.oracle.layers[1].r2[4], abs=1e-6)


def test_the_models_are_left_as_they_were_but_for_the_adapter() -> None:
    base, twin = _blocks_moved()
    before = {name: p.clone() for model in (base, twin) for name, p in model.named_parameters()}
    model = extract(base, twin, TEXT, rank=2, nonlinear_steps=2, ranks=(1, 2), distill_steps=2).model
    for one in (base, twin):
        assert not any(p.grad is not None for p in one.parameters())
    theirs = dict(twin.named_parameters())
    assert all(torch.equal(before[name], p) for name, p in theirs.items())
    original = ARCHITECTURES["llama"]().state_dict()
    plain = model.unload()
    assert all(torch.equal(value, original[name]) for name, value in plain.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())


def test_an_interrupted_extraction_goes_on(tmp_path) -> None:
    whole = extract(*_blocks_moved(), TEXT, rank=2, folder=tmp_path / "whole", **FAST).model

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "Fitting the adapter" and done == len(TEXT) + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(*_blocks_moved(), TEXT, rank=2, folder=tmp_path / "cut", heard=interrupt, **FAST)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [UNFINISHED]
    with pytest.raises(ActshiftError, match="holds something"):
        extract(*_blocks_moved(), TEXT, rank=2, folder=tmp_path / "cut", **FAST)
    with pytest.raises(ActshiftError, match="other models, text or ranks"):
        extract(*_blocks_moved(), TEXT, rank=4, folder=tmp_path / "cut", resume=True, **FAST)
    steps = []
    extract(
        *_blocks_moved(),
        TEXT,
        rank=2,
        folder=tmp_path / "cut",
        resume=True,
        heard=lambda phase, done, total: steps.append((phase, total)),
        **FAST,
    )
    assert ("Fitting the adapter", 2 * len(TEXT)) in steps  # of three layers one was done
    assert not (tmp_path / "cut" / UNFINISHED).exists()
    loaded = load_adapter(ARCHITECTURES["llama"](), str(tmp_path / "cut")).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded, TEXT[0]), logits(whole.eval(), TEXT[0]))


def test_a_budget_is_kept_and_spent_where_the_oracle_is() -> None:
    base, twin = _blocks_moved()
    with torch.no_grad():
        twin.model.layers[0].load_state_dict(base.model.layers[0].state_dict())
    report = extract(base, twin, TEXT, budget=400, **FAST).report
    assert 400 - (3 * WIDTH + 1) < report.parameters <= 400
    assert 0 not in [layer.layer for layer in report.layers]
    with pytest.raises(ActshiftError, match="A budget of 20 parameters buys no rank"):
        ranks_within(20, report.oracle, WIDTH)


def test_a_report_prints_draws_itself_and_goes_to_json(tmp_path) -> None:
    report = extract(*_blocks_moved(), TEXT, rank=2, nonlinear_steps=3, ranks=(1, 2)).report
    assert "exact oracle" in str(report) and "linear, every rank" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["kl"].keys() == {"base", "oracle", "linear", "closed_form"}
    report.figure().savefig(tmp_path / "oracle.svg")


def test_low_precision_is_fitted_too() -> None:
    base, twin = (model.bfloat16() for model in _blocks_moved("gpt2"))
    report = extract(base, twin, TEXT, rank=8, **FAST).report
    assert report.kl["closed_form"] < 0.7 * report.kl["base"]


@pytest.mark.parametrize(
    ("twin", "text", "told"),
    [
        (lambda base: ARCHITECTURES["llama"](hidden_size=16), TEXT, "the same size"),
        (lambda base: ARCHITECTURES["llama"](num_hidden_layers=2), TEXT, "model.layers.2"),
        (lambda base: ARCHITECTURES["llama"](vocab_size=100), TEXT, "embed_tokens.weight is"),
        (deepcopy, TEXT, "nothing to extract"),
        (moved, [], "there are no rows"),
        (moved, batches(count=1, batch=1, seq=1), "there is 1 in 1"),
    ],
)
def test_what_cannot_be_extracted_is_told_in_one_line(twin, text, told: str) -> None:
    base = ARCHITECTURES["llama"]()
    with pytest.raises(ActshiftError, match=told) as error:
        extract(base, twin(base), text, **FAST)
    assert "\n" not in str(error.value)


def test_an_overflow_in_half_precision_is_told() -> None:
    base, twin = (model.half() for model in _blocks_moved())
    with torch.no_grad():
        twin.model.layers[1].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(ActshiftError, match=r"overflow the model's dtype.*float32 or bfloat16"):
        extract(base, twin, TEXT, **FAST)


def test_another_tokenizer_is_told() -> None:
    other = word_tokenizer()
    other.add_tokens(["more"])
    with pytest.raises(ActshiftError, match="another tokenizer: 'more' is no token in the base and 96 there"):
        check_same_tokenizer(word_tokenizer(), other)


def test_layers_that_are_done_are_kept() -> None:
    base, twin = _blocks_moved()
    ranks = dict.fromkeys(range(3), 1)
    twins = ModelPair.of(base, twin)
    model = attach(base, config_for(ranks))
    twins = ModelPair(model, twin, twins.blocks, twins.finetuned_blocks, ())
    done = {0: LayerFit(0, 1, 0.5, 0.25)}
    fits = fit_layers(twins, TEXT, ranks, done)
    assert fits[0] == done[0] and len(fits) == 3
    assert validation_kl(twins, TEXT) > 0
