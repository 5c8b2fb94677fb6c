"""Names and shapes of the tensors that the LoRA half of a joint adapter has, before PEFT creates them."""

from collections.abc import Callable

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from torch import nn
from transformers.pytorch_utils import Conv1D

from actshift.tuner.checkpoint import Shape
from actshift.tuner.config import JointConfig
from actshift.tuner.layer import CONTAINER
from actshift.tuner.traversal import modules_around_adapters


def adapted_modules(model: nn.Module, config: JointConfig, adapts: Callable[[str], bool]) -> set[str]:
    """Return the modules to which LoRA adds tensors whose shapes `lora_shapes` does not predict, such as experts."""
    ends = tuple(config.target_parameters or ())
    parameters = [name.replace(".base_layer", "") for name, _ in model.named_parameters()] if ends else []
    experts = {name.rpartition(".")[0] for name in parameters if name.endswith(ends)}
    predicted = nn.Linear | Conv1D | nn.Embedding
    modules = [name for name, module in modules_around_adapters(model) if not isinstance(_bare(module), predicted)]
    return experts | {name for name in modules if adapts(name)}


def lora_shapes(model: nn.Module, config: JointConfig, adapts: Callable[[str], bool]) -> dict[str, Shape]:
    """Return shapes of the tensors that LoRA makes in linear maps and embeddings, by name."""
    shapes: dict[str, Shape] = {}
    ranks: dict[str, int] = config.rank_pattern or {}
    for name, module in model.named_modules():
        if not adapts(name) or CONTAINER in name or ".base_layer" in name:
            continue
        layer = _bare(module)
        rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
        if isinstance(layer, nn.Embedding):
            shapes[f"{name}.lora_embedding_A"] = (rank, layer.num_embeddings)
            shapes[f"{name}.lora_embedding_B"] = (layer.embedding_dim, rank)
        elif isinstance(layer, nn.Linear | Conv1D):
            linear = isinstance(layer, nn.Linear)
            d_in, d_out = (layer.in_features, layer.out_features) if linear else (layer.nx, layer.nf)
            shapes[f"{name}.lora_A.weight"], shapes[f"{name}.lora_B.weight"] = (rank, d_in), (d_out, rank)
    return shapes


def _bare(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
