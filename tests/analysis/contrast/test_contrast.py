from __future__ import annotations

import json

import pytest
import torch

from actshift import ActshiftError, load_adapter, set_strength
from actshift.analysis.contrast import contrast
from tests.tiny import word_tokenizer
from tests.zoo import ARCHITECTURES, LAYERS, WIDTH

TOKENIZER = word_tokenizer()
POSITIVE = ["w1 w2 w3", "w4 w2 w5 w6 w3", "w9 w3", "w7 w1 w3"]
NEGATIVE = ["w8 w11 w3", "w12 w3", "w15 w16 w17 w18 w19 w3"]


@pytest.fixture
def model():
    return ARCHITECTURES["llama"]().eval()


@torch.no_grad()
def hidden(model, text: str) -> list[torch.Tensor]:
    """What each block but the last gives for one text alone, without the end-of-text token."""
    ids = TOKENIZER(text, return_tensors="pt")["input_ids"]
    return [state[0] for state in model(input_ids=ids, output_hidden_states=True).hidden_states[1:-1]]


@pytest.mark.parametrize("token", ["last", "mean"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_vectors_are_those_of_texts_one_by_one(name, token):
    model = ARCHITECTURES[name]().eval()
    found = contrast(model, TOKENIZER, POSITIVE, NEGATIVE, token=token, batch_size=3)
    assert [len(v) for v in found.vectors] == [WIDTH] * LAYERS
    for block in range(LAYERS - 1):
        sides = [
            torch.stack([states[block][-1] if token == "last" else states[block].mean(0) for states in rows])
            for rows in ([hidden(model, text) for text in side] for side in (POSITIVE, NEGATIVE))
        ]
        assert torch.allclose(found.vectors[block], sides[0].mean(0) - sides[1].mean(0), atol=1e-5)


def test_of_a_prompt_with_its_completion_the_completion_counts(model):
    rows = [{"prompt": "w1 w2", "completion": " w3 w4"}, {"prompt": "w5", "completion": " w6 w4"}]
    others = [{"prompt": "w1 w2", "completion": " w7 w4"}, {"prompt": "w5", "completion": " w8 w9 w4"}]
    found = contrast(model, TOKENIZER, rows, others, token="mean")
    means = [
        torch.stack([hidden(model, row["prompt"] + row["completion"])[0][-count:].mean(0) for row, count in side])
        for side in (zip(rows, (2, 2), strict=True), zip(others, (2, 3), strict=True))
    ]
    assert torch.allclose(found.vectors[0], means[0].mean(0) - means[1].mean(0), atol=1e-5)


def test_the_model_is_left_as_it_was_and_another_run_gives_the_same_bits(model):
    model.train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    one, other = (contrast(model, TOKENIZER, POSITIVE, NEGATIVE) for _ in range(2))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(one.vectors, other.vectors, strict=True))


def test_attached_it_shifts_by_strength_times_v_and_survives_the_disk(model, tmp_path):
    found = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    last = LAYERS - 1
    inputs = TOKENIZER("w1 w2 w3", return_tensors="pt")
    ids = {"input_ids": inputs["input_ids"]}
    seen: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**ids)
        steered = found.attach(model, [-1])
        for strength in (1, -2):
            set_strength(steered, strength)
            steered(**ids)
            assert torch.allclose(seen[-1] - seen[0], strength * found.vectors[last].expand_as(seen[0]), atol=1e-5)
        handle.remove()
        logits = steered(**ids).logits
    steered.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["adapter"], config["site"], config["layers"]) == ({"kind": "vector"}, "post_block", [last])
    again = load_adapter(ARCHITECTURES["llama"]().eval(), str(tmp_path))
    set_strength(again, -2)
    with torch.no_grad():
        assert torch.equal(again(**ids).logits, logits)


def test_the_middle_block_is_the_default_and_adapters_stand_beside_each_other(model):
    found = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    steered = found.attach(model)
    assert steered.peft_config["default"].layers == [LAYERS // 2]
    steered = found.attach(steered, [0, 1], adapter_name="second")
    vectors = {name: p for name, p in steered.named_parameters() if "lora_steer.second" in name}
    assert len(vectors) == 2
    assert all(torch.equal(p, found.vectors[at]) for at, p in enumerate(vectors.values()))


def test_report(model):
    report = contrast(model, TOKENIZER, POSITIVE, NEGATIVE).report
    values = json.loads(json.dumps(report.to_dict()))
    assert (values["positive"], values["negative"], len(values["layers"])) == (4, 3, LAYERS)
    assert all(0 <= one["separation"] <= 1 for one in values["layers"])
    assert values["layers"][0]["relative"] == pytest.approx(
        values["layers"][0]["norm"] / values["layers"][0]["residual"]
    )
    assert "4 positive and 3 negative rows" in str(report) and "separation" in str(report)
    assert not report.notes
    assert len(report.figure().axes) == 2


def test_last_tokens_that_are_on_one_side_only_are_told(model):
    [note] = contrast(model, TOKENIZER, ["w1 w2", "w3 w2"], ["w1 w4", "w3 w4"]).report.notes
    assert "'w2'" in note and "'w4'" in note
    assert not contrast(model, TOKENIZER, ["w1 w2", "w3 w2"], ["w1 w4", "w3 w4"], token="mean").report.notes


PAIRS = [{"prompt": "w1", "completion": " w2"}, {"prompt": "w3", "completion": " w4"}]


@pytest.mark.parametrize(
    ("positive", "negative", "options", "line"),
    [
        (POSITIVE, POSITIVE[::-1], {}, "are the same"),
        (POSITIVE, [], {}, "There is no negative row"),
        (["w1"], NEGATIVE, {}, "There is one positive row"),
        (POSITIVE, PAIRS, {}, "The positive rows have text, the negative ones prompt and completion"),
        ([{"tokens": ["w1"], "tags": ["a"]}] * 2, NEGATIVE, {}, "positive rows have the columns tokens, tags"),
        ([{"text": "w1", "text_pair": "w2"}] * 2, NEGATIVE, {}, "positive rows have the columns text, text_pair"),
        (POSITIVE, NEGATIVE, {"method": "pca"}, "pairs row by row, and there are 4 positive and 3 negative"),
        (POSITIVE, NEGATIVE, {"method": "means"}, "did you mean 'mean'"),
        (POSITIVE, NEGATIVE, {"token": "lats"}, "did you mean 'last'"),
        (["", *POSITIVE], NEGATIVE, {}, "One of the positive rows is empty"),
        ([{"prompt": "w1", "completion": ""}] * 2, PAIRS, {}, "Row 1 of the positive rows has an empty completion"),
        (POSITIVE, NEGATIVE, {"max_length": 5}, "Row 3 of the negative rows has 6 tokens, above max_length 5"),
    ],
)
def test_wrong_rows(model, positive, negative, options, line):
    with pytest.raises(ActshiftError, match=line):
        contrast(model, TOKENIZER, positive, negative, **options)


def test_layers_that_there_are_not(model):
    found = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    with pytest.raises(ActshiftError, match="layer 9 is out of range"):
        found.attach(model, [9])
    with pytest.raises(ActshiftError, match="is not a list"):
        found.attach(model, [])
    assert not hasattr(model, "peft_config")


def test_a_label_beside_a_text_is_left_out(model):
    rows = [{"text": text, "label": "good"} for text in POSITIVE]
    labelled = contrast(model, TOKENIZER, rows, [{"text": text, "label": "bad"} for text in NEGATIVE])
    plain = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    assert torch.equal(labelled.vectors[0], plain.vectors[0])


def test_values_that_are_not_finite_are_refused(model):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0] = torch.inf
    with pytest.raises(ActshiftError, match="Block 1 gives values that are not finite"):
        contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
