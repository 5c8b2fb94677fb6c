"""Training with a cached prefix is bit-identical to training without, or raises an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn

from actshift import ActshiftError, SteeringConfig, attach
from actshift.sites import find_blocks
from actshift.training import FitResult, TrainSettings, fit, plan, train
from actshift.training.prefix_cache import CachedPrefix, TensorStore, find_prefix
from tests.characters import char_tokenizer, sums
from tests.encoders import classed, save_encoder, write
from tests.training.helpers import Killed, kill_at
from tests.zoo import ARCHITECTURES, example_inputs

UNEVEN = [{**row, "prompt": "?" * (number % 5) + row["prompt"]} for number, row in enumerate(sums(18))]
SETTINGS = TrainSettings(
    epochs=3, batch_size=4, gradient_accumulation=1, learning_rate=1e-2, group_by_length=True, save_steps=2
)


def steered(name: str = "llama", site: str = "post_block", **overrides: float) -> nn.Module:
    torch.manual_seed(0)
    config = SteeringConfig(rank=4, site=site, layers=[1, 2], task_type="CAUSAL_LM")
    return attach(ARCHITECTURES[name](**overrides), config)


def trained(model: nn.Module, settings: TrainSettings, rows: int = 18) -> tuple[FitResult, dict[str, torch.Tensor]]:
    data = Dataset.from_list(UNEVEN[:rows])
    result = fit(model, char_tokenizer(), data, settings, eval_rows=data.select(range(5)))
    return replace(result, seconds=0), {
        name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def runs_of(monkeypatch) -> Iterator[list[int]]:
    """How often the first block was computed, run by run of the test."""
    counts: list[int] = []
    original = CachedPrefix.__enter__

    def count(*_: object) -> None:
        counts[-1] += 1

    def counting(self: CachedPrefix) -> CachedPrefix:
        if not counts:
            self.prefix.blocks[0].self_attn.register_forward_hook(count)
        counts.append(0)
        return original(self)

    monkeypatch.setattr(CachedPrefix, "__enter__", counting)
    yield counts


def test_cache_gives_bit_identical_losses_and_weights(runs_of):
    plain = trained(steered(), SETTINGS)
    model = steered()
    cached = trained(model, replace(SETTINGS, cache_prefix="memory"))
    assert cached[0] == plain[0] and same(cached[1], plain[1])
    assert all("forward" not in block.__dict__ for _, block in find_blocks(model))
    # Five training and two evaluation batches; one of them is computed twice for the comparison.
    assert runs_of == [2, 5 + 2 + 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, site, change",
    [
        ("falcon", "post_block", {"cache_prefix": "memory"}),  # its blocks return tuples
        ("llama", "post_mlp", {"cache_prefix": "disk"}),
        ("llama", "post_block", {"cache_prefix": "disk", "gradient_accumulation": 2}),
        ("llama", "post_block", {"cache_prefix": "memory", "cache_limit": 3e-6}),
        ("llama", "post_block", {"cache_prefix": "memory", "gradient_checkpointing": True}),
        ("llama", "post_block", {"cache_prefix": "disk", "precision": "bf16"}),
    ],
)
def test_cache_is_exact_for_other_models_sites_and_settings(name, site, change):
    settings = replace(SETTINGS, **change)
    plain = trained(steered(name, site), replace(settings, cache_prefix="off", cache_limit=4.0))
    cached = trained(steered(name, site), settings)
    assert cached[0] == plain[0] and same(cached[1], plain[1])


@pytest.mark.slow
def test_resumed_run_refills_the_cache_and_leaves_no_file(settings, tmp_path, monkeypatch):
    settings = replace(
        settings, group_by_length=True, cache_prefix="disk", layers=("1:",), max_steps=14, eval_share=0.25
    )
    train(replace(settings, cache_prefix="off", out=str(tmp_path / "plain")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(9, patch, "on_step_end")
        train(settings)
    assert not any(file.is_file() for file in Path(settings.out, "checkpoints").glob("tmp*"))
    train(settings, resume=True)
    cached, plain = (Path(folder, "adapter_model.safetensors") for folder in (settings.out, tmp_path / "plain"))
    assert cached.read_bytes() == plain.read_bytes()


@pytest.mark.slow
def test_cache_is_exact_for_classification(tmp_path):
    model = save_encoder(tmp_path / "model")
    rows = write(tmp_path / "rows.jsonl", classed(30))
    run = dict(model=str(model), data=str(rows), layers=("-2:",), epochs=3, batch_size=4, group_by_length=True)
    for cache in ("off", "memory"):
        train(TrainSettings(**run, cache_prefix=cache, out=str(tmp_path / cache)))
    plain, cached = ((tmp_path / cache / "adapter_model.safetensors").read_bytes() for cache in ("off", "memory"))
    assert plain == cached


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_store_returns_copies_up_to_its_limit(place, tmp_path):
    store = TensorStore(100, tmp_path if place == "disk" else None)
    for key, tensor in {b"a": torch.randn(2, 5), b"b": torch.randn(9, 5), b"c": torch.randn(3, 7).bfloat16()}.items():
        store.keep(key, tensor)
        stored = store.get(key)
        assert (stored is None) if key == b"b" else torch.equal(stored, tensor) and stored.dtype == tensor.dtype
    store.get(b"a").zero_()
    assert store.get(b"a").any(), "the store returned the stored tensor instead of a copy"
    store.close()
    assert not list(tmp_path.iterdir())


def test_only_known_batches_skip_the_prefix():
    model, inputs = steered(), example_inputs("llama")
    before = model(**inputs).logits
    with CachedPrefix(find_prefix(model), TensorStore(1e6)) as cache:
        for _ in range(3):
            assert torch.equal(model(**inputs).logits, before)
        other = {**inputs, "input_ids": inputs["input_ids"].flip(1)}
        assert cache.compared and not torch.equal(model(**other).logits, before)
        assert len(cache.store.entries) == 2
    assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize(
    "model, change, message",
    [
        (steered, {"group_by_length": False}, "random batches do not repeat; add group_by_length"),
        (steered, {"epochs": 1}, "A run of 5 steps uses none of its 18 rows twice"),
        (steered, {"adapter": "lofit"}, "LoFiT, whose two phases"),
        (lambda: ARCHITECTURES["llama"](), {}, "Training starts inside the first block"),
        (lambda: steered("llama", attention_dropout=0.1), {}, "not deterministic"),
        (lambda: steered("bloom"), {}, "BloomBlock returns more than its hidden states"),
        (lambda: with_embeddings(steered()), {}, "is trained too, such as the embeddings"),
        (lambda: steered("qwen3_moe"), {}, "output of Qwen3MoeForCausalLM changes .*the loss of their routers"),
        (lambda: leaking(steered()), {}, "changes when its first blocks are skipped"),
    ],
)
def test_runs_that_cannot_use_the_cache_raise_before_anything_is_written(model, change, message, tmp_path):
    data = Dataset.from_list(UNEVEN)
    settings = replace(SETTINGS, cache_prefix="memory", **change)
    with pytest.raises(ActshiftError, match=message):
        fit(model(), char_tokenizer(), data, settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_objectives_without_repeating_batches_raise():
    for rows, message in (
        ({"text": ["a"], "text_pair": ["b"]}, "embed draws new batches in every epoch"),
        (
            {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]},
            "cache_prefix memory needs .* leave it out for dpo",
        ),
    ):
        objective = "dpo" if "chosen" in rows else "embed"
        settings = replace(SETTINGS, objective=objective, cache_prefix="memory", group_by_length=objective == "embed")
        with pytest.raises(ActshiftError, match=message):
            fit(steered(), char_tokenizer(), Dataset.from_dict(rows), settings)


def test_cache_settings_without_effect_raise():
    for change, message in (
        ({"method": "joint"}, "cache_prefix has no effect when method is joint"),
        ({"cache_prefix": "off", "cache_limit": 1}, "cache_limit has no effect when cache_prefix is off"),
    ):
        with pytest.raises(ActshiftError, match=message):
            TrainSettings(**{"cache_prefix": "memory", **change})


def test_encoder_decoder_raises():
    with pytest.raises(ActshiftError, match="has an encoder and a decoder"):
        find_prefix(ARCHITECTURES["t5"]())


def test_plan_estimates_the_cache_size(settings):
    settings = replace(settings, group_by_length=True, cache_prefix="memory", layers=("1:",), max_steps=20)
    foreseen = plan(settings)
    assert foreseen.cache == foreseen.to_dict()["cache_bytes"] > 40 * 5 * 32 * 4
    assert plan(replace(settings, cache_limit=1e-6)).cache == 1073
    with pytest.raises(ActshiftError, match="Training starts inside the first block"):
        plan(replace(settings, layers=None, site="post_mlp"))


def with_embeddings(model):
    model.get_input_embeddings().requires_grad_(True)
    return model


def leaking(model):
    """Pass a value from the first block to the last one outside the residual stream; no known architecture does."""
    first, _, last = (block for _, block in find_blocks(model))
    first.register_forward_pre_hook(lambda block, args: None)
    first.self_attn.register_forward_hook(lambda module, args, output: setattr(last, "leak", output[0].mean()))
    last.register_forward_hook(lambda block, args, output: output + block.__dict__.pop("leak", 0))
    return model
