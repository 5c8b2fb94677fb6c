"""The contract for joint adapters on every architecture."""

from __future__ import annotations

import copy

import pytest
import torch

from actshift import (
    ActshiftError,
    JointConfig,
    SteeringConfig,
    attach,
    halves,
    load_adapter,
    orthogonality_violations,
    save_half,
)
from actshift.sites import SITES
from tests.contract.cases import fresh_model, randomise, run
from tests.zoo import ARCHITECTURES, example_inputs, output_of

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # PEFT changes it for GPT-2
EXPERTS = {"qwen3_moe": ["mlp.experts.down_proj"], "mixtral": ["mlp.experts.down_proj"]}
FAST = ("llama", "gpt2", "opt", "bert", "mixtral", "t5")
architectures = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ARCHITECTURES]
)


def joint(name: str, site: str = "post_block", **fields) -> JointConfig:
    if site not in ("post_block", "post_mlp"):
        fields["orthogonality"] = None
    return JointConfig(r=2, target_parameters=EXPERTS.get(name), steering=SteeringConfig(rank=4, site=site), **fields)


def trained(name: str, site: str = "post_block"):
    """Return a joint model after one optimiser step from random weights."""
    model = attach(fresh_model(name), joint(name, site))
    randomise(model)
    step(model, name)
    return model.eval()


def step(model, name: str) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    output_of(model.train()(**example_inputs(name))).square().mean().backward()
    optimizer.step()


@architectures
def test_fresh_adapter_is_a_no_op_and_unload_restores_the_base(name):
    base = run(fresh_model(name), name)
    model = attach(fresh_model(name), joint(name))
    assert torch.equal(run(model, name), base)
    bare = trained(name).unload()
    assert torch.equal(run(bare, name), base)
    assert not [key for key, _ in bare.named_modules() if "lora" in key or "actshift" in key]


@architectures
def test_rule_holds_after_every_step_and_in_the_file(name, tmp_path):
    model = attach(fresh_model(name), joint(name))
    randomise(model)
    for _ in range(3):
        step(model, name)
        assert max(orthogonality_violations(model).values()) < 1e-5
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = load_adapter(fresh_model(name), str(tmp_path))
    assert max(orthogonality_violations(loaded).values()) < 1e-5


@architectures
def test_saved_adapter_and_saved_halves_compute_the_same(name, tmp_path):
    model = trained(name)
    both = run(model, name)
    model.save_pretrained(str(tmp_path / "joint"), save_embedding_layers=False)
    assert torch.equal(run(load_adapter(fresh_model(name), str(tmp_path / "joint")), name), both)
    for half in ("weights", "activations"):
        with halves(model, half):
            alone = run(model, name)
        assert not torch.equal(alone, both)
        save_half(model, half, tmp_path / half)
    assert torch.equal(run(model, name), both)
    steered = load_adapter(fresh_model(name), str(tmp_path / "activations"))
    with halves(model, "activations"):
        assert torch.equal(run(steered, name), run(model, name))


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
@architectures
def test_every_site_works_with_lora(name, site):
    model = trained(name, site)
    both = run(model, name)
    with halves(model, "weights"):
        assert not torch.equal(run(model, name), both)
    assert torch.equal(run(copy.deepcopy(model), name), both)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_experts_without_lora_are_refused(name):
    model = fresh_model(name)
    with pytest.raises(ActshiftError, match=r"nothing to be orthogonal to.*experts.*target_parameters"):
        attach(model, JointConfig(r=2, steering=SteeringConfig(rank=4)))
    assert not [key for key, _ in model.named_modules() if "lora" in key or "actshift" in key]
