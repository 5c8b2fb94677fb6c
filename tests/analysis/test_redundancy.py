from __future__ import annotations

import json
import math

import pytest
import torch
from peft import get_peft_model

from actshift import JointConfig, LowRank, SteeringConfig, Vector, attach, set_halves
from actshift.analysis import redundancy
from actshift.analysis.capture import half_shifts
from actshift.analysis.redundancy import BlockRedundancy, Overlap, Redundancy
from actshift.errors import ActshiftError
from tests.contract.cases import fresh_model, randomise
from tests.zoo import LAYERS, WIDTH, example_inputs

BATCHES = [example_inputs("llama", seed=seed) for seed in range(4)]
LAST = LAYERS - 1


def joint(adapter=None, **fields):
    torch.manual_seed(0)
    fields = dict(r=1, target_modules=["down_proj"], orthogonality=None) | fields
    steering = SteeringConfig(adapter=adapter or LowRank(rank=1, activation=None))
    return get_peft_model(fresh_model("llama"), JointConfig(steering=steering, **fields)).eval()


def parts(model, block: int):
    """Return LoRA's A and B and the shift of one block."""
    inside = model.base_model.model.model.layers[block]
    down = inside.mlp.down_proj
    return down.lora_A["default"].weight, down.lora_B["default"].weight, inside.actshift.lora_steer["default"]


@torch.no_grad()
def test_the_read_overlap_is_the_known_angle_between_w_down_and_lora_b():
    model = joint()
    angles = torch.linspace(0, math.pi / 2, LAYERS)
    for block, angle in enumerate(angles):
        _, written, shift = parts(model, block)
        written.zero_()[0] = 7.0
        shift.down.weight.zero_()[0, 0], shift.down.weight[0, 5] = 0.1 * angle.cos(), 0.1 * angle.sin()
    report = redundancy(model, BATCHES)
    for block, angle in zip(report.blocks, angles, strict=True):
        assert block.read.mean == pytest.approx(angle.cos().item() ** 2, abs=1e-6)
        assert block.read.largest == pytest.approx(angle.cos().item(), abs=1e-6)
        assert block.read.chance == 1 / WIDTH
    assert report.read == pytest.approx(angles.cos().square().mean().item())


@torch.no_grad()
@pytest.mark.parametrize("degrees", [0, 60, 90, 180])
def test_the_shift_overlap_is_the_known_angle_between_the_shifts(degrees):
    # Only in the last block, LoRA writes along one axis and the vector along another.
    model = joint(Vector())
    turn = math.radians(degrees)
    read, written, shift = parts(model, LAST)
    read.copy_(torch.randn_like(read))
    written[0] = 2.0
    shift.vector[0], shift.vector[1] = math.cos(turn), math.sin(turn)
    report = redundancy(model, BATCHES)
    *unchanged, last = report.blocks
    assert all((block.shift, block.cosine) == (None, None) for block in unchanged)
    assert last.read is None  # a vector has no W_down
    assert last.shift.mean == pytest.approx(math.cos(turn) ** 2, abs=1e-6)
    assert last.shift.chance == 1 / WIDTH
    # the sign of LoRA's shift depends on the token
    signs = _signs(model)
    assert last.cosine == pytest.approx(signs * math.cos(turn), abs=1e-5)


def _signs(model) -> float:
    weights, _ = half_shifts(model, BATCHES)
    return weights[LAST][:, 0].sign().mean().item()


def test_the_shifts_are_the_differences_that_each_half_alone_makes():
    model = joint(LowRank(rank=2), r=2, target_modules="all-linear")
    randomise(model)
    weights, activations = half_shifts(model, BATCHES)
    hidden = {}
    for half in ("weights", "activations"):
        set_halves(model, half)
        hidden[half] = _hidden(model)
    set_halves(model, "both")
    with model.disable_adapter():
        base = _hidden(model)
    for block in range(LAYERS - 1):  # transformers returns the last hidden state after the final norm
        torch.testing.assert_close(weights[block], hidden["weights"][block] - base[block])
        torch.testing.assert_close(activations[block], hidden["activations"][block] - base[block])


@torch.no_grad()
def _hidden(model) -> list[torch.Tensor]:
    outputs = [model(**batch, output_hidden_states=True).hidden_states[1:] for batch in BATCHES]
    return [torch.cat([states[block].flatten(0, 1) for states in outputs]) for block in range(LAYERS)]


def test_padding_is_skipped_and_the_token_limit_applies():
    model = joint(LowRank(rank=2), r=2)
    randomise(model)
    padded = {name: value.clone() for name, value in BATCHES[0].items()}
    padded["attention_mask"][1, 3:] = 0
    weights, activations = half_shifts(model, [padded, BATCHES[1]], tokens=12)
    assert {len(shift) for shift in weights + activations} == {12}
    whole, _ = half_shifts(model, [padded, BATCHES[1]])
    assert len(whole[0]) == 7 + 3 + 14
    assert torch.equal(whole[1][:12], weights[1])


def test_the_model_and_the_random_state_are_restored():
    model = joint(LowRank(rank=2), r=2)
    randomise(model)
    model.train()
    with torch.no_grad():
        before = model(**BATCHES[0]).logits
    state = torch.get_rng_state()
    redundancy(model, BATCHES)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert torch.equal(model(**BATCHES[0]).logits, before)
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_models_without_halves_and_empty_batches_are_refused():
    with pytest.raises(ActshiftError, match="no joint adapter"):
        redundancy(attach(fresh_model("llama"), SteeringConfig(rank=2)), BATCHES)
    with pytest.raises(ActshiftError, match=r"(?i)held-out tokens.*\bno(ne)?\b"):
        redundancy(joint(), [])


def test_a_report_prints_as_a_table_and_as_json():
    blocks = (
        BlockRedundancy(0, Overlap(0.25, 0.5, 0.125), Overlap(0.5, 0.75, 0.25), -0.5),
        BlockRedundancy(1, None, None, None),
    )
    report = Redundancy(blocks, 2048)
    assert str(report).splitlines() == [
        "Overlap of the two halves",
        "block  read cos²  max cos  chance  shift cos²  max cos  chance  token cos",
        "0          0.250    0.500   0.125       0.500    0.750   0.250     -0.500",
        "1              –        –       –           –        –       –          –",
        "mean       0.250                        0.500                      -0.500",
        "How to read it: An overlap is the mean squared cosine of principal angles, from 0 to 1; chance is the overlap "
        "of random subspaces.",
        "What to do: Leave the rule as it is: steering reads 0.250 of what LoRA writes, and 0.12 is chance. Keep both "
        "halves: their shifts overlap by 0.50, and 0.25 is",
        "chance.",
        "Read: the rows of W_down against col(B), that is what steering reads and LoRA writes. Shift: the shifts of "
        "each half alone, on 2,048 tokens.",
    ]
    stored = json.loads(json.dumps(report.to_dict()))
    assert (stored["read"], stored["shift"], stored["cosine"], stored["tokens"]) == (0.25, 0.5, -0.5, 2048)
    assert stored["blocks"][1] == {"block": 1, "read": None, "shift": None, "cosine": None}
