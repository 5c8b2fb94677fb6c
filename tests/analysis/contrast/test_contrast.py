from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift import ActshiftError, load_adapter, set_strength
from actshift.analysis.contrast import contrast
from actshift.analysis.contrast.contrast import METHODS, mean_difference, principal_difference, separation
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
    """Return the output of each block but the last for a single text, without the end-of-text token."""
    ids = TOKENIZER(text, return_tensors="pt")["input_ids"]
    return [state[0] for state in model(input_ids=ids, output_hidden_states=True).hidden_states[1:-1]]


@pytest.mark.parametrize("token", ["last", "mean"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_batching_does_not_change_the_vectors(name, token):
    model = ARCHITECTURES[name]().eval()
    result = contrast(model, TOKENIZER, POSITIVE, NEGATIVE, token=token, batch_size=3)
    assert [len(v) for v in result.vectors] == [WIDTH] * LAYERS
    for block in range(LAYERS - 1):
        sides = [
            torch.stack([states[block][-1] if token == "last" else states[block].mean(0) for states in rows])
            for rows in ([hidden(model, text) for text in side] for side in (POSITIVE, NEGATIVE))
        ]
        assert torch.allclose(result.vectors[block], sides[0].mean(0) - sides[1].mean(0), atol=1e-5)


def test_only_completions_count_in_prompt_and_completion_rows(model):
    rows = [{"prompt": "w1 w2", "completion": " w3 w4"}, {"prompt": "w5", "completion": " w6 w4"}]
    others = [{"prompt": "w1 w2", "completion": " w7 w4"}, {"prompt": "w5", "completion": " w8 w9 w4"}]
    result = contrast(model, TOKENIZER, rows, others, token="mean")
    means = [
        torch.stack([hidden(model, row["prompt"] + row["completion"])[0][-count:].mean(0) for row, count in side])
        for side in (zip(rows, (2, 2), strict=True), zip(others, (2, 3), strict=True))
    ]
    assert torch.allclose(result.vectors[0], means[0].mean(0) - means[1].mean(0), atol=1e-5)


def test_the_model_does_not_change_and_a_second_run_is_bit_identical(model):
    model.train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (contrast(model, TOKENIZER, POSITIVE, NEGATIVE) for _ in range(2))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(first.vectors, second.vectors, strict=True))


def test_an_attached_vector_shifts_by_its_strength_and_can_be_saved(model, tmp_path):
    result = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    last = LAYERS - 1
    inputs = TOKENIZER("w1 w2 w3", return_tensors="pt")
    ids = {"input_ids": inputs["input_ids"]}
    norm_inputs: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: norm_inputs.append(args[0]))
    with torch.no_grad():
        model(**ids)
        steered = result.attach(model, [-1])
        for strength in (1, -2):
            set_strength(steered, strength)
            steered(**ids)
            assert torch.allclose(
                norm_inputs[-1] - norm_inputs[0], strength * result.vectors[last].expand_as(norm_inputs[0]), atol=1e-5
            )
        handle.remove()
        logits = steered(**ids).logits
    steered.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["adapter"], config["site"], config["layers"]) == ({"kind": "vector"}, "post_block", [last])
    loaded = load_adapter(ARCHITECTURES["llama"]().eval(), str(tmp_path))
    set_strength(loaded, -2)
    with torch.no_grad():
        assert torch.equal(loaded(**ids).logits, logits)


@pytest.mark.parametrize("shift", ["ablate", "gate"])
def test_the_direction_can_be_ablated_or_gated(model, shift):
    result, ids = (
        contrast(model, TOKENIZER, POSITIVE, NEGATIVE),
        TOKENIZER("w1 w2 w3", return_tensors="pt")["input_ids"],
    )
    states: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.no_grad():
        model(ids)
        steered = result.attach(model, [-1], shift=shift)
        set_strength(steered, 0.5)
        steered(ids)
    handle.remove()
    h, v = states[0], result.vectors[-1]
    along = (h @ v)[..., None] * v / (v @ v)
    expected = h - 0.5 * along if shift == "ablate" else h + 0.5 * (along.norm(dim=-1) / h.norm(dim=-1))[..., None] * v
    assert torch.allclose(states[1], expected, atol=1e-5)
    with pytest.raises(ActshiftError, match="did you mean 'gate'"):
        result.attach(model, shift="gat")


def test_the_middle_block_is_the_default_and_several_adapters_can_be_attached(model):
    result = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    steered = result.attach(model)
    assert steered.peft_config["default"].layers == [LAYERS // 2]
    steered = result.attach(steered, [0, 1], adapter_name="second")
    vectors = {name: p for name, p in steered.named_parameters() if "lora_steer.second" in name}
    assert len(vectors) == 2
    assert all(torch.equal(p, result.vectors[at]) for at, p in enumerate(vectors.values()))


def test_the_report_prints_draws_and_converts_to_json(model):
    report = contrast(model, TOKENIZER, POSITIVE, NEGATIVE).report
    values = json.loads(json.dumps(report.to_dict()))
    assert (values["positive"], values["negative"], len(values["layers"])) == (4, 3, LAYERS)
    assert all(0 <= layer["separation"] <= 1 for layer in values["layers"])
    assert values["layers"][0]["relative"] == pytest.approx(
        values["layers"][0]["norm"] / values["layers"][0]["residual"]
    )
    assert "4 positive and 3 negative rows" in str(report) and "separation" in str(report)
    assert not report.notes
    assert len(report.figure().axes) == 2


def test_a_note_warns_about_last_tokens_that_the_sides_do_not_share(model):
    [note] = contrast(model, TOKENIZER, ["w1 w2", "w3 w2"], ["w1 w4", "w3 w4"]).report.notes
    assert "'w2'" in note and "'w4'" in note
    assert not contrast(model, TOKENIZER, ["w1 w2", "w3 w2"], ["w1 w4", "w3 w4"], token="mean").report.notes


PAIRS = [{"prompt": "w1", "completion": " w2"}, {"prompt": "w3", "completion": " w4"}]


@pytest.mark.parametrize(
    ("positive", "negative", "options", "message"),
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
def test_unusable_rows_and_options_are_rejected_with_the_reason(model, positive, negative, options, message):
    with pytest.raises(ActshiftError, match=message):
        contrast(model, TOKENIZER, positive, negative, **options)


def test_layers_that_do_not_exist_are_rejected(model):
    result = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    with pytest.raises(ActshiftError, match="layer 9 is out of range"):
        result.attach(model, [9])
    with pytest.raises(ActshiftError, match="is not a list"):
        result.attach(model, [])
    assert not hasattr(model, "peft_config")


def test_the_label_column_of_a_text_is_ignored(model):
    rows = [{"text": text, "label": "good"} for text in POSITIVE]
    labelled = contrast(model, TOKENIZER, rows, [{"text": text, "label": "bad"} for text in NEGATIVE])
    plain = contrast(model, TOKENIZER, POSITIVE, NEGATIVE)
    assert torch.equal(labelled.vectors[0], plain.vectors[0])


def test_activations_that_are_not_finite_are_rejected(model):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0] = torch.inf
    with pytest.raises(ActshiftError, match="Block 1 gives values that are not finite"):
        contrast(model, TOKENIZER, POSITIVE, NEGATIVE)


SHAPES = st.tuples(st.integers(2, 9), st.integers(1, 9), st.integers(0, 10_000))


def sides(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) + 0.5, torch.randn(rows, width, generator=generator)


@given(SHAPES)
def test_pca_projects_the_mean_difference_on_the_first_right_singular_vector(shape):
    positive, negative = sides(shape)
    differences = (positive - negative).double()
    _, values, axes = torch.linalg.svd(differences, full_matrices=False)
    if len(values) > 1 and values[1] > 0.99 * values[0]:
        return  # the first axis is not unique
    expected = axes[0] * (axes[0] @ differences.mean(0))
    assert torch.allclose(principal_difference(positive, negative).double(), expected, atol=1e-5)


@given(SHAPES, st.sampled_from(sorted(METHODS)))
def test_vectors_point_from_negative_to_positive_with_the_length_of_the_step(shape, method):
    positive, negative = sides(shape)
    v = METHODS[method](positive, negative)
    apart = (positive @ v).mean() - (negative @ v).mean()
    assert apart >= -1e-5
    if v.norm() > 1e-3:
        assert apart / v.norm() == pytest.approx(v.norm().item(), rel=1e-3)
    assert torch.allclose(METHODS[method](negative, positive), -v, atol=1e-5)


def test_pca_recovers_a_common_difference_from_noisy_pairs():
    torch.manual_seed(0)
    truth, noise = torch.zeros(8), torch.randn(40, 8)
    truth[0] = 4.0
    negative = torch.randn(40, 8)
    vector = principal_difference(negative + truth + 0.3 * noise, negative)
    assert torch.cosine_similarity(vector, truth, dim=0) > 0.99


@pytest.mark.parametrize("method", sorted(METHODS))
def test_separation_of_noise_is_chance_because_it_is_cross_validated(method):
    torch.manual_seed(0)
    noise = torch.randn(20, 400), torch.randn(20, 400)  # the fit itself separates them perfectly
    v = METHODS[method](*noise)
    assert ((noise[0] @ v).min() > (noise[1] @ v).max()) or method == "pca"
    assert 0.25 < separation(*noise, METHODS[method]) < 0.75
    assert separation(noise[0] + 2.0, noise[1], METHODS[method]) == 1.0


def test_separation_weighs_both_sides_equally_whatever_their_sizes():
    positive, negative = torch.ones(30, 1), torch.zeros(3, 1)
    assert separation(positive, negative, mean_difference) == 1.0
    assert (
        separation(torch.ones(30, 1), torch.ones(3, 1), mean_difference) == 0.0
    )  # rows on the threshold count as wrong
