from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch

from actshift import ActshiftError, load_adapter
from actshift.analysis.extract import check_same_tokenizer, extract
from actshift.analysis.extract.extract import UNFINISHED
from actshift.analysis.extract.model_pair import logits
from tests.analysis.extract.conftest import FAST, TEXT, with_changed_blocks
from tests.analysis.twins import batches, disjoint, left_multiplied, moved
from tests.tiny import word_tokenizer
from tests.zoo import ARCHITECTURES


def test_a_linear_shift_is_recovered_at_its_rank() -> None:
    base = disjoint()
    finetuned = left_multiplied(base, "model.layers.0.mlp.down_proj.weight", rank=2)
    report = extract(base, finetuned, TEXT, rank=2, **FAST).report
    assert report.kl["base"] > 1e-2
    assert report.kl["closed_form"] < 1e-6
    assert report.layers[0].r2 == pytest.approx(1, abs=1e-6)
    [layer] = report.oracle.layers
    assert layer.r2[2] == pytest.approx(1, abs=1e-6) and layer.r2[1] < 0.99
    assert layer.energy[2] == pytest.approx(1)


def test_a_higher_rank_and_distillation_reduce_the_kl() -> None:
    kl = {
        (rank, steps): extract(*with_changed_blocks("gpt2"), TEXT, rank=rank, distill_steps=steps, **FAST).report.kl
        for rank, steps in ((1, 0), (8, 0), (8, 60))
    }
    assert kl[8, 0]["closed_form"] < kl[1, 0]["closed_form"] < kl[1, 0]["base"]
    assert kl[8, 60]["distilled"] < kl[8, 60]["closed_form"] == pytest.approx(kl[8, 0]["closed_form"])


def test_only_the_adapter_is_added_to_the_models() -> None:
    base, finetuned = with_changed_blocks()
    before = {name: p.clone() for name, p in finetuned.named_parameters()}
    model = extract(base, finetuned, TEXT, rank=2, nonlinear_steps=2, ranks=(1, 2), distill_steps=2).model
    assert not any(p.grad is not None for either in (base, finetuned) for p in either.parameters())
    assert all(torch.equal(before[name], p) for name, p in finetuned.named_parameters())
    original, plain = ARCHITECTURES["llama"]().state_dict(), model.unload()
    assert all(torch.equal(value, original[name]) for name, value in plain.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())


def test_an_interrupted_extraction_resumes_and_gives_the_same_adapter(tmp_path) -> None:
    whole = extract(*with_changed_blocks(), TEXT, rank=2, folder=tmp_path / "whole", **FAST).model
    options = {"folder": tmp_path / "cut", **FAST}

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "Fitting the adapter" and done == len(TEXT) + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(*with_changed_blocks(), TEXT, rank=2, on_progress=interrupt, **options)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [UNFINISHED]
    with pytest.raises(ActshiftError, match="unfinished extraction; continue it with --resume"):
        extract(*with_changed_blocks(), TEXT, rank=2, **options)
    with pytest.raises(ActshiftError, match="other models, text or ranks"):
        extract(*with_changed_blocks(), TEXT, rank=4, resume=True, **options)
    steps = []

    def record(phase: str, done: int, total: int) -> None:
        steps.append((phase, total))

    extract(*with_changed_blocks(), TEXT, rank=2, resume=True, on_progress=record, **options)
    assert ("Fitting the adapter", 2 * len(TEXT)) in steps  # one of three layers was done
    assert not (tmp_path / "cut" / UNFINISHED).exists()
    loaded = load_adapter(ARCHITECTURES["llama"](), str(tmp_path / "cut")).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded, TEXT[0]), logits(whole.eval(), TEXT[0]))


def test_the_report_prints_draws_and_converts_to_json(tmp_path) -> None:
    report = extract(*with_changed_blocks(), TEXT, rank=2, nonlinear_steps=3, ranks=(1, 2)).report
    assert "exact oracle" in str(report) and "linear, every rank" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["kl"].keys() == {"base", "oracle", "linear", "closed_form"}
    report.figure().savefig(tmp_path / "oracle.svg")


def test_bfloat16_models_can_be_extracted() -> None:
    base, finetuned = (model.bfloat16() for model in with_changed_blocks("gpt2"))
    report = extract(base, finetuned, TEXT, rank=8, **FAST).report
    assert report.kl["closed_form"] < 0.7 * report.kl["base"]


@pytest.mark.parametrize(
    ("finetuned_from", "text", "message"),
    [
        (lambda base: ARCHITECTURES["llama"](hidden_size=16), TEXT, "the same size"),
        (lambda base: ARCHITECTURES["llama"](num_hidden_layers=2), TEXT, "model.layers.2"),
        (lambda base: ARCHITECTURES["llama"](vocab_size=100), TEXT, "embed_tokens.weight is"),
        (deepcopy, TEXT, "nothing to extract"),
        (moved, [], "there are no rows"),
        (moved, batches(count=1, batch=1, seq=1), "there is 1 in 1"),
    ],
)
def test_models_and_text_that_do_not_fit_are_rejected_in_one_line(finetuned_from, text, message: str) -> None:
    base = ARCHITECTURES["llama"]()
    with pytest.raises(ActshiftError, match=message) as error:
        extract(base, finetuned_from(base), text, **FAST)
    assert "\n" not in str(error.value)


def test_an_overflow_in_half_precision_is_reported_with_the_fix() -> None:
    base, finetuned = (model.half() for model in with_changed_blocks())
    with torch.no_grad():
        finetuned.model.layers[1].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(ActshiftError, match=r"overflows the range of its dtype.*float32 or bfloat16"):
        extract(base, finetuned, TEXT, **FAST)


def test_different_tokenizers_are_rejected_with_the_first_difference() -> None:
    other = word_tokenizer()
    other.add_tokens(["more"])
    with pytest.raises(ActshiftError, match="another tokenizer: 'more' is no token in the base and 96 there"):
        check_same_tokenizer(word_tokenizer(), other)
