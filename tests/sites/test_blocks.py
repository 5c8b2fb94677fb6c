"""`find_blocks` on every architecture, on wrapped and composite models, and by name."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

from actshift.errors import ActshiftError
from actshift.sites import find_blocks
from tests import zoo
from tests.zoo import ARCHITECTURES, LAYERS

FIRST_AND_LAST = {
    "gpt2": ("transformer.h.0", "transformer.h.2"),
    "gpt_neox": ("gpt_neox.layers.0", "gpt_neox.layers.2"),
    "opt": ("model.decoder.layers.0", "model.decoder.layers.2"),
    "falcon": ("transformer.h.0", "transformer.h.2"),
    "bloom": ("transformer.h.0", "transformer.h.2"),
    "bert": ("bert.encoder.layer.0", "bert.encoder.layer.2"),
    "roberta": ("roberta.encoder.layer.0", "roberta.encoder.layer.2"),
    "t5": ("encoder.block.0", "decoder.block.1"),
    "vit": ("vit.layers.0", "vit.layers.2"),
}
VISION_PART = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=5, num_attention_heads=2)
VISION_PART |= dict(image_size=16, patch_size=8)


def names(model, blocks=None):
    return [name for name, _ in find_blocks(model, blocks)]


def multimodal():
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=dict(zoo._LLAMA, model_type="llama"),
            vision_config=dict(VISION_PART, model_type="clip_vision_model"),
        )
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_blocks_of_every_architecture(name):
    model = ARCHITECTURES[name]()
    blocks = find_blocks(model)
    assert len(blocks) == (4 if name == "t5" else LAYERS)
    assert all(model.get_submodule(path) is block for path, block in blocks)
    first, last = FIRST_AND_LAST.get(name, ("model.layers.0", "model.layers.2"))
    assert (blocks[0][0], blocks[-1][0]) == (first, last)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_model_without_its_head_has_the_same_blocks(name):
    model = ARCHITECTURES[name]()
    bare = find_blocks(model.base_model)
    assert [block for _, block in bare] == [block for _, block in find_blocks(model)]


@pytest.mark.parametrize("auto", ["AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModel"])
def test_blocks_are_found_with_any_head(auto):
    model = getattr(transformers, auto).from_config(ARCHITECTURES["qwen2"]().config)
    assert len(find_blocks(model)) == LAYERS


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
def test_adapters_inside_blocks_are_not_taken_for_blocks(name):
    model = ARCHITECTURES[name]()
    before = names(model)
    for _, block in find_blocks(model):
        block.add_module("actshift", nn.ModuleDict({"lora_steer": nn.ModuleList(nn.Linear(2, 2) for _ in range(9))}))
    assert names(model) == before
    assert names(get_peft_model(model, LoraConfig(target_modules="all-linear"))) == before
    assert names(model) == before


def test_a_prompt_tuning_wrapper_is_unwrapped():
    model = ARCHITECTURES["llama"]()
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert names(get_peft_model(model, config)) == names(model)


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.model])
def test_only_the_text_part_of_a_multimodal_model_is_searched(part):
    model = part(multimodal())
    blocks = find_blocks(model)
    assert [type(block).__name__ for _, block in blocks] == ["LlamaDecoderLayer"] * LAYERS
    assert all("language_model" in name for name, _ in blocks)


def test_blocks_of_the_vision_part_can_be_chosen_by_name():
    vision = "model.vision_tower.encoder.layers"
    assert names(multimodal(), vision) == [f"{vision}.{layer}" for layer in range(5)]


def test_a_composite_encoder_decoder_has_the_blocks_of_both_halves():
    vision, text = (ARCHITECTURES[name]().config for name in ("vit", "gpt2"))
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    blocks = names(transformers.VisionEncoderDecoderModel(config))
    assert blocks[:LAYERS] == [f"encoder.layers.{layer}" for layer in range(LAYERS)]
    assert blocks[LAYERS:] == [f"decoder.transformer.h.{layer}" for layer in range(LAYERS)]


def test_one_half_of_an_encoder_decoder_can_be_chosen_by_name():
    assert names(ARCHITECTURES["t5"](), "decoder.block") == ["decoder.block.0", "decoder.block.1"]


def test_no_split_modules_are_used_if_nothing_is_recorded(monkeypatch):
    model = ARCHITECTURES["bert"]()
    expected = names(model)
    for cls in {type(module) for module in model.modules() if hasattr(module, "_can_record_outputs")}:
        monkeypatch.setattr(cls, "_can_record_outputs", None)
    assert names(model) == expected


def test_the_longest_outermost_list_is_used_for_a_plain_module():
    block = nn.Sequential(nn.Linear(2, 2), nn.ModuleList(nn.Linear(2, 2) for _ in range(9)))
    model = nn.ModuleDict({"stem": nn.ModuleList([nn.Linear(2, 2)]), "body": nn.ModuleList([block, nn.Identity()])})
    assert names(model) == ["body.0", "body.1"]


def test_lists_of_equal_length_are_an_error_that_names_them():
    model = nn.ModuleDict({side: nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]) for side in ("left", "right")})
    message = r"has 2 lists .* 'left' \(2 Linear\), 'right' \(2 Linear\)\. Choose .* blocks='left'"
    with pytest.raises(ActshiftError, match=message):
        find_blocks(model)
    assert names(model, "right") == ["right.0", "right.1"]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("model.layer", r"'model.layer' does not exist in LlamaForCausalLM\. .* 'model.layers' \(3 Llama"),
        (
            "model.layers.0.mlp",
            r"is a LlamaMLP in LlamaForCausalLM\. Give the name of a list: 'model.layers'",
        ),
        ("", r"blocks='' is a LlamaForCausalLM"),
    ],
)
def test_a_name_that_is_not_a_list_is_rejected(blocks, message):
    with pytest.raises(ActshiftError, match=message):
        find_blocks(ARCHITECTURES["llama"](), blocks)


def test_a_model_without_blocks_is_rejected():
    with pytest.raises(ActshiftError, match="Linear contains no list of transformer blocks"):
        find_blocks(nn.Linear(2, 2))


PEGASUS_X = dict(d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4)
PEGASUS_X |= dict(encoder_ffn_dim=48, decoder_ffn_dim=48, num_global_tokens=2, block_size=4, vocab_size=96)
HALVES = {  # transformers records, or forbids to split, the blocks of one half only
    "PegasusXForConditionalGeneration": ("encoder.layers", "decoder.layers"),
    "SpeechT5ForSpeechToText": ("encoder.wrapped_encoder.layers", "decoder.wrapped_decoder.layers"),
    "Pix2StructForConditionalGeneration": ("encoder.encoder.layer", "decoder.layer"),
    "DiaForConditionalGeneration": ("encoder.layers", "decoder.layers"),
    "T5Gemma2ForConditionalGeneration": ("encoder.text_model.layers", "decoder.layers"),
    "SeamlessM4TForTextToSpeech": ("text_encoder.layers", "text_decoder.layers"),
    "Florence2ForConditionalGeneration": ("language_model.encoder.layers", "language_model.decoder.layers"),
    "BlenderbotForConditionalGeneration": ("encoder.layers", "decoder.layers"),  # 2 and 24 blocks
}


@pytest.mark.parametrize("class_name", HALVES)
def test_both_halves_of_an_encoder_decoder_are_found(class_name):
    model_class = getattr(transformers, class_name)
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    found = names(model)
    lists = list(dict.fromkeys(name.rpartition(".")[0] for name in found))
    assert (
        tuple(name.removeprefix(f"{model.base_model_prefix}.").removeprefix("model.") for name in lists)
        == (HALVES[class_name])
    )
    assert len(found) == sum(len(model.get_submodule(name)) for name in lists)


def test_layers_count_the_encoder_first():
    model = transformers.PegasusXForConditionalGeneration(transformers.PegasusXConfig(**PEGASUS_X))
    model.model.encoder = model.model._modules.pop("encoder")  # registered after the decoder
    expected = [f"model.encoder.layers.{layer}" for layer in range(3)]
    assert names(model) == expected + [f"model.decoder.layers.{layer}" for layer in range(2)]


def test_an_encoder_decoder_with_blocks_in_one_half_is_refused():
    with torch.device("meta"):
        model = transformers.ParakeetForTDT(transformers.ParakeetTDTConfig())
    with pytest.raises(ActshiftError, match=r"'decoder' of ParakeetForTDT .* one half .* 'encoder.layers' \(24 "):
        find_blocks(model)
    assert len(names(model, "encoder.layers")) == 24


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_unequal_halves_of_a_plain_module_are_not_taken_for_one():
    with pytest.raises(ActshiftError, match=r"has 2 lists .* 'encoder.layers' \(3 .*'decoder.layers' \(2 "):
        find_blocks(nn.Transformer(8, 2, num_encoder_layers=3, num_decoder_layers=2, dim_feedforward=8))


@pytest.mark.parametrize("class_name", ["ZambaForCausalLM", "Zamba2ForCausalLM"])
def test_all_classes_of_a_hybrid_are_blocks(class_name):
    model_class = getattr(transformers, class_name)
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    assert len(names(model)) == model.config.num_hidden_layers


def test_lists_of_lists_are_flattened():
    with torch.device("meta"):
        model = transformers.FunnelModel(transformers.FunnelConfig(block_sizes=[2, 2]))
    assert names(model, "encoder.blocks") == [f"encoder.blocks.{i}.{j}" for i in (0, 1) for j in (0, 1)]


def test_a_custom_encoder_decoder_that_declares_one_half_has_both():
    model = nn.Module()
    model.config = transformers.PretrainedConfig(is_encoder_decoder=True)
    model._no_split_modules = ["Linear"]
    model.embed = nn.Embedding(9, 4)
    model.readers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    model.writers = nn.ModuleList(nn.Bilinear(4, 4, 4) for _ in range(2))
    assert names(model) == [*(f"readers.{layer}" for layer in range(3)), "writers.0", "writers.1"]
