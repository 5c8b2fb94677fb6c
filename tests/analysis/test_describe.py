from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actshift import ActshiftError, HeadVector, JointConfig, LowRank, SteeringConfig, Vector, attach
from actshift.analysis import AdapterDescription, ModelDescription, describe, describe_adapter, describe_model
from actshift.sites import BRANCHES
from tests.tiny import save_adapter, save_model
from tests.zoo import ARCHITECTURES

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", base, rank=4)


def test_an_adapter_is_described_without_its_base_model(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    folder = save_adapter(tmp_path / "adapter", base, adapter=LowRank(rank=4, bias=True), layers=[-1, 0])
    shutil.rmtree(base)
    described = describe_adapter(str(folder))
    assert described.base_model == str(base)
    assert (described.site, described.layers) == ("post_block", [-1, 0])
    assert described.adapter == "LowRank(rank=4, activation='silu', bias=True, init='default')"
    assert described.dtype == "float32"
    assert [site.module for site in described.sites] == ["model.layers.0", "model.layers.2"]
    assert described.sites[0].shapes == {
        "down.weight": (4, 32),
        "down.bias": (4,),
        "up.weight": (32, 4),
        "up.bias": (32,),
    }
    assert described.parameters == 2 * LowRank(rank=4, bias=True).parameter_count(32)
    assert described.other_parameters == 0
    assert described.share is None
    assert described.file_bytes == (folder / WEIGHTS).stat().st_size


def test_norms_are_those_of_the_stored_matrices_and_their_product(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    name = "base_model.model.model.layers.1.actshift.lora_steer.{}.weight"
    down, up = tensors[name.format("down")], tensors[name.format("up")]
    norms = describe_adapter(str(adapter)).sites[1].norms
    assert norms["down.weight"] == pytest.approx(down.norm().item())
    assert norms["up.weight"] == pytest.approx(up.norm().item())
    assert norms["product"] == pytest.approx((up @ down).norm().item())


def test_a_vector_adapter_has_one_norm_per_site(base: Path, tmp_path: Path) -> None:
    described = describe_adapter(str(save_adapter(tmp_path / "v", base, adapter=Vector(), site="post_mlp")))
    assert [set(site.norms) for site in described.sites] == [{"vector"}] * 3
    assert described.sites[0].module == "model.layers.0.mlp"


def test_the_share_is_known_if_the_base_is_on_this_machine(adapter: Path) -> None:
    described = describe_adapter(str(adapter))
    assert described.share == described.parameters / ARCHITECTURES["llama"]().num_parameters()


def test_modules_are_listed_in_numeric_order(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", num_hidden_layers=11)
    described = describe_adapter(str(save_adapter(tmp_path / "adapter", base, rank=1)))
    assert [site.module for site in described.sites] == [f"model.layers.{layer}" for layer in range(11)]


def test_tensors_that_do_not_steer_are_counted_separately(base: Path, tmp_path: Path) -> None:
    described = describe_adapter(str(save_adapter(tmp_path / "a", base, rank=1, modules_to_save=["lm_head"])))
    assert described.other_parameters == 96 * 32


def test_a_joint_adapter_names_its_lora_and_its_steered_inputs(base: Path, tmp_path: Path) -> None:
    heads = SteeringConfig(adapter=HeadVector(heads=(1,)), site="attention_heads")
    joint = JointConfig(r=2, steering=heads, orthogonality=None)
    attach(AutoModelForCausalLM.from_pretrained(base), joint).save_pretrained(str(tmp_path / "joint"))
    described = describe_adapter(str(tmp_path / "joint"))
    assert described.sites[0].module == "model.layers.0.self_attn.o_proj (input)"
    assert described.other_parameters > 0
    assert described.weights == (
        "LoRA r=2 on down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; no orthogonality rule"
    )


def _truncate(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _diverge(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / WEIGHTS)


def _empty(folder: Path) -> None:
    save_file({"other": torch.zeros(1)}, folder / WEIGHTS)


def _garble(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": ')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged"),
        (_diverge, "holds values that are not finite, in base_model"),
        (_empty, "holds no steering tensors"),
        (_garble, "not valid JSON"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no adapter_model.safetensors"),
    ],
)
def test_a_damaged_adapter_is_rejected_with_the_reason(adapter: Path, damage, message: str) -> None:
    damage(adapter)
    with pytest.raises(ActshiftError, match=message):
        describe(str(adapter))


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "vit"])
def test_a_model_is_described_from_its_config_alone(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name]()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)  # no weights at all
    described = describe_model(str(tmp_path))
    assert described.parameters == model.num_parameters()
    assert described.d_model == 32
    assert described.file_bytes is None
    post_block = described.sites[0]
    assert (post_block.site, len(post_block.hosts)) == ("post_block", described.blocks)
    assert post_block.parameters == described.blocks * LowRank(rank=8).parameter_count(32)
    assert post_block.share == post_block.parameters / described.parameters


def test_a_site_that_a_model_lacks_has_a_reason(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BRANCHES, "llama")
    post_block, post_mlp, *_ = describe_model(str(base)).sites
    assert (post_block.problem, post_mlp.hosts) == (None, ())
    assert "llama" in str(post_mlp.problem)


def test_describe_distinguishes_adapters_and_models(base: Path, adapter: Path) -> None:
    assert isinstance(describe(str(adapter)), AdapterDescription)
    assert isinstance(describe(str(base)), ModelDescription)
    assert json.loads(json.dumps(describe(str(base)).to_dict()))["kind"] == "model"


def test_other_folders_damaged_models_and_unknown_ids_are_rejected(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="is no adapter and no model"):
        describe(str(tmp_path))
    with pytest.raises(ActshiftError, match="neither a folder here"):
        describe("nobody/nothing")
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(ActshiftError, match="damaged"):
        describe(str(copy))
