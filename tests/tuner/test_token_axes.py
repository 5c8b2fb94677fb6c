"""Rows and positions are right wherever a model keeps batch and sequence, also if both have one size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig

from actshift import ActshiftError, JointConfig, SteeringConfig, attach, prompt_lengths
from actshift.sites import Positions, resolve
from actshift.tuner import steering_layers
from actshift.tuner.token_axes import FLAT, token_axes
from tests import zoo
from tests.contract.cases import fresh_model, randomise

SHARED = dict(vocab_size=96, pad_token_id=0, bos_token_id=1, eos_token_id=2)
GEMMA_3N = dict(
    zoo._HEAD_DIM, vocab_size_per_layer_input=96, hidden_size_per_layer_input=8, laurel_rank=4, num_kv_shared_layers=1,
    sliding_window=4, layer_types=["sliding_attention", "full_attention"] * 2, num_hidden_layers=4,
    activation_sparsity_pattern=[0.0] * 4,
)  # fmt: skip
XLNET = dict(SHARED, d_model=32, n_layer=2, n_head=4, d_inner=48, dropout=0.0)
FSMT = dict(
    langs=["en", "de"], src_vocab_size=96, tgt_vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, dropout=0.0,
    attention_dropout=0.0, activation_dropout=0.0,
)  # fmt: skip
STREAMS = dict(
    zoo._HEAD_DIM, num_hidden_layers=2, num_key_value_heads=1, n_routed_experts=4, num_experts_per_tok=2,
    moe_intermediate_size=16, q_lora_rank=8, qk_rope_head_dim=4, index_n_heads=2, index_head_dim=8, index_topk=4,
    o_lora_rank=8, o_groups=2,
)  # fmt: skip
MODELS = {  # model type: auto class, settings, shape of the hidden states in a batch of 4 rows of 6 tokens
    "gemma3n_text": ("AutoModelForCausalLM", GEMMA_3N, (4, 4, 6, 32)),
    "xlnet": ("AutoModelForCausalLM", XLNET, (6, 4, 32)),
    "fsmt": ("AutoModelForSeq2SeqLM", FSMT, (6, 4, 32)),
    "openai-gpt": ("AutoModelForCausalLM", dict(zoo._GPT2), (4, 6, 32)),
    "deepseek_v4": ("AutoModelForCausalLM", STREAMS, (4, 6, 4, 32)),
}
SHAPES = [(4, 6), (4, 4), (2, 4), (3, 1), (1, 1)]  # Gemma-3n has 4 streams
CLOSE = dict(atol=2e-5, rtol=1e-4)


def build(name: str, **config):
    auto, settings, _ = MODELS[name]
    torch.manual_seed(0)
    base = getattr(transformers, auto).from_config(AutoConfig.for_model(name, **settings), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model = attach(base, SteeringConfig(rank=2, **config))
    randomise(model)
    return model.eval()


def token_ids(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(5, 90, (batch, seq), generator=torch.Generator().manual_seed(batch + 7 * seq))


@torch.no_grad()
def logits(model, ids, **more):
    decoder = {"decoder_input_ids": ids[:, : max(1, ids.shape[1] - 2)]} if model.config.is_encoder_decoder else {}
    return model(input_ids=ids, **decoder, **more).logits


@pytest.mark.parametrize("name", MODELS)
def test_rows_with_adapters_of_their_own(name):
    model = build(name)
    seen = []
    steering_layers(model)[next(iter(steering_layers(model)))].register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape))
    )
    for shape in SHAPES:
        ids, names = token_ids(*shape), ["default", "__base__", "default", "__base__"][: shape[0]]
        steered, mixed = logits(model, ids), logits(model, ids, adapter_names=names)
        with model.disable_adapter():
            base = logits(model, ids)
        assert not torch.allclose(steered, base, atol=1e-3)
        for row, own in enumerate(names):
            torch.testing.assert_close(mixed[row], (steered if own == "default" else base)[row], **CLOSE)
    assert seen[0] == MODELS[name][2]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "fsmt"])  # the decoder's tokens are all generated
def test_positions_of_each_row(name):
    model = build(name, positions=Positions.prompt())
    for batch, seq in SHAPES[:3]:
        ids, lengths = token_ids(batch, seq), [1 + row % (seq - 1) for row in range(batch)]
        with prompt_lengths(model, lengths):
            together = logits(model, ids)
        for row, length in enumerate(lengths):
            with prompt_lengths(model, [length]):
                torch.testing.assert_close(together[row], logits(model, ids[row : row + 1])[0], **CLOSE)
        with prompt_lengths(model, [0] * batch), model.disable_adapter():
            assert not torch.allclose(together, logits(model, ids), atol=1e-3)


def test_the_memory_of_xlnet_has_a_setting_of_its_own():
    model, ids = build("xlnet", positions=Positions.prompt()), token_ids(2, 5)
    with pytest.raises(ActshiftError, match=r"no number of tokens\. Set use_mems=False"):
        model.generate(input_ids=ids, max_new_tokens=2)
    model.generate(input_ids=ids, max_new_tokens=2, use_mems=False)


@pytest.mark.parametrize("name", ["gemma3n_text", "fsmt"])
def test_generation_with_beams_and_rows(name):
    model, ids, names = build(name), token_ids(4, 4), ["default", "__base__", "default", "default"]
    settings = dict(max_new_tokens=3, num_beams=2, num_return_sequences=2, do_sample=False)
    mixed = model.generate(input_ids=ids, adapter_names=names, **settings)
    steered = model.generate(input_ids=ids, **settings)
    with model.disable_adapter():
        steered[2:4] = model.generate(input_ids=ids, **settings)[2:4]
    assert torch.equal(mixed, steered)


def test_rows_of_a_joint_adapter_on_a_time_major_model_are_refused():
    model = attach(build("fsmt").unload(), JointConfig(r=2, orthogonality=None)).eval()
    for ids in (token_ids(2, 5), token_ids(3, 3)):
        with pytest.raises(ActshiftError, match="LoRA"):
            logits(model, ids, adapter_names=["default", "__base__", "default"][: len(ids)])


class TimeMajor(nn.Module):
    """A model outside of transformers whose blocks pass `[seq, batch, d]` or `[batch, seq, d]`."""

    def __init__(self, time_major: bool) -> None:
        super().__init__()
        self.config = transformers.PretrainedConfig(hidden_size=8)
        self.embed, self.time_major = nn.Embedding(90, 8), time_major
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, input_ids):
        h = self.embed(input_ids.T if self.time_major else input_ids)
        for block in self.blocks:
            h = h + block(h)
        return h.transpose(0, 1) if self.time_major else h


@pytest.mark.parametrize("time_major", [False, True])
def test_a_custom_model_learns_its_axes_or_is_refused(time_major):
    model = attach(TimeMajor(time_major), SteeringConfig(rank=2)).eval()
    randomise(model)
    square, names = token_ids(3, 3), ["default", "__base__", "default"]
    with pytest.raises(ActshiftError, match=r"several axes of .* 3 rows and 3 tokens.*Run the model once"):
        model(square, adapter_names=names)
    model(token_ids(3, 5), adapter_names=names)
    mixed, steered = model(square, adapter_names=names), model(square)
    with model.disable_adapter():
        base = model(square)
    torch.testing.assert_close(mixed, torch.stack([steered[0], base[1], steered[2]]), **CLOSE)


def test_a_named_tuple_or_a_block_without_hooks_is_refused():
    settings = dict(SHARED, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
    model = transformers.SqueezeBertModel(transformers.SqueezeBertConfig(**settings, embedding_size=32))
    with pytest.raises(ActshiftError, match=r"SqueezeBertModel calls the `forward` of its blocks.*no hooks"):
        resolve(model)
    reformer = transformers.ReformerConfig(
        **SHARED, hidden_size=32, attn_layers=["local"], axial_pos_embds=False, num_attention_heads=4,
        attention_head_size=8, feed_forward_size=32, local_attn_chunk_length=4,
    )  # fmt: skip
    with pytest.raises(ActshiftError, match="ReformerLayer returns a ReformerOutput, not a tensor"):
        attach(transformers.ReformerModel(reformer), SteeringConfig(rank=2)).eval()(token_ids(2, 8))


@pytest.mark.parametrize(
    ("sizes", "tokens", "expected", "axes"),
    [
        ((2, 3), (2, 3), (0, 1), (0, 1)),
        ((3, 2), (2, 3), (0, 1), (1, 0)),  # an unlisted time-major model
        ((3, 3), (3, 3), (1, 0), (1, 0)),
        ((2, 9), (2, 3), (0, 1), (0, 1)),  # a pooled or extended sequence
        ((6,), (2, 3), (0, 1), FLAT),
        ((5,), (2, 3), (0, 1), None),  # without padding
        ((6,), (2, 3), None, None),
        ((3,), (1, 3), None, FLAT),
        ((4, 2), (2, 3), (0, 1), None),
        ((2, 2, 3), (2, 3), None, None),
        ((2, 5), (2, None), None, (0, 1)),
        ((2, 2), (2, None), None, None),
    ],
)
def test_axes_of_activations(sizes, tokens, expected, axes):
    layer = SimpleNamespace(axes=expected, host=nn.Linear(1, 1))
    if axes is None:
        with pytest.raises(ActshiftError):
            token_axes(torch.zeros(*sizes, 8), tokens, layer)
    else:
        assert token_axes(torch.zeros(*sizes, 8), tokens, layer) == axes


def test_each_row_needs_one_name():
    model = attach(fresh_model("llama"), SteeringConfig(rank=2)).eval()
    ids = token_ids(4, 4)
    for names in (["default"] * 2, ["default"] * 8, ["default"]):
        with pytest.raises(ActshiftError, match=rf"adapter_names has {len(names)} entries for a batch of 4 rows"):
            model(input_ids=ids, adapter_names=names)
        with pytest.raises(ActshiftError, match=rf"adapter_names has {len(names)} entries for a batch of 4 rows"):
            model.generate(input_ids=ids, adapter_names=names, max_new_tokens=1)
