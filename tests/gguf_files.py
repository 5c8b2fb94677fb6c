"""Write tiny GGUF files with the writer of llama.cpp."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import gguf
import torch

from tests.zoo import ARCHITECTURES, VOCAB

MERGES = ["Ġ w", *(f"w {digit}" for digit in digits), *(f"Ġw {digit}" for digit in digits)]
TOKENS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<|endoftext|>",
    "Ġ",
    *ascii_lowercase,
    *digits,
    *(merge.replace(" ", "") for merge in MERGES),
]
TOKENS += [f"<extra{number}>" for number in range(VOCAB - len(TOKENS))]
CHAT = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"


def save_gguf(path: Path, model: Any = None, quantised: bool = False, arch: str = "llama") -> Path:
    """Save a Llama of the zoo (or `model`) in float32, or with matrices in blocks of 8-bit integers (Q8_0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model or ARCHITECTURES["llama"]()
    config, writer = model.config, gguf.GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token.startswith("<") else 1 for token in TOKENS])  # 3: a special token
    writer.add_token_merges(MERGES)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values, kind = _permuted(name, tensor, config).numpy(), gguf.GGMLQuantizationType.F32
        if quantised and tensor.dim() == 2 and tensor.shape[1] % 32 == 0:  # rows are cut into blocks of 32
            kind = gguf.GGMLQuantizationType.Q8_0
            values = gguf.quants.quantize(values, kind)
        writer.add_tensor(names.get_name(name, (".weight",)), values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _permuted(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Order the rows of queries and keys as llama.cpp does: the two halves of each head alternate."""
    if "q_proj" not in name and "k_proj" not in name:
        return tensor
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape).contiguous()
