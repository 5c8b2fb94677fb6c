"""Merge an adapter into an ordinary model, and describe the weight updates that this takes."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from rich.console import RenderableType
from rich.table import Column, Table
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from actshift.analysis.folding.plan import Fold, plan_folds
from actshift.analysis.sections import Printable, number
from actshift.errors import ActshiftError
from actshift.sites.blocks import unwrap
from actshift.tuner.controls import joint_layers

BIAS_SWITCHES = ("attention_bias", "mlp_bias", "use_bias", "bias")  # config fields that give linear maps a bias
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest do not count for the rank


def merged(model: Any) -> PreTrainedModel:
    """Fold the active adapters of a steered model into its weights, and return the plain transformers model.

    An affine shift Δ(y) = M y + c after a linear map y = W m + b is absorbed as

        W ← (I + M) W,    b ← (I + M) b + c,

    with W `[outputs, inputs]`, and at the input of a map as W ← W (I + M), b ← b + W c. Updates are computed in float64
    and stored in the model's dtype, so the logits do not change up to rounding. Strengths are included. PEFT merges the
    LoRA half of a joint adapter first. If a map needs a bias that the architecture lacks, the config is changed to have
    one, and the other biases that this adds are zero. Do not use `model` afterwards.

    Raises:
        ActshiftError: A shift cannot be folded exactly (see `plan_folds`), or the architecture cannot have the bias
            that it needs. The model is then unchanged.

    Source: this project, docs/method.md#folding.

    >>> from actshift import SteeringConfig, Vector, attach
    >>> from actshift.demo import load_base
    >>> type(merged(attach(load_base()[0], SteeringConfig(adapter=Vector())))).__name__
    'LlamaForCausalLM'
    """
    folds = plan_folds(model)
    config = _config_with_biases(unwrap(model), folds)
    with torch.no_grad():
        for layer in joint_layers(model)["weights"]:
            cast(Any, layer).merge(adapter_names=list(layer.active_adapters))
        for fold in folds:
            _apply(fold)
    plain = cast(PreTrainedModel, model.unload())
    return plain if config is None else _rebuild(plain, config)


def _apply(fold: Fold) -> None:
    """Change the weight and the bias of a linear map, computed in float64 and stored in their dtype."""
    module: Any = fold.module
    weight, matrix, constant = _weight(fold), fold.shift.matrix, fold.shift.constant
    bias = torch.zeros(len(weight), dtype=torch.float64) if module.bias is None else module.bias.detach().double().cpu()
    bias = bias + weight @ constant if fold.at_input else bias + matrix @ bias + constant
    module.weight.copy_(_as_linear(module, weight + effective_update(fold)))
    if module.bias is not None:
        module.bias.copy_(bias)
    elif bias.any():
        module.bias = nn.Parameter(bias.to(module.weight.device, module.weight.dtype), requires_grad=False)


def effective_update(fold: Fold) -> Tensor:
    """Return ΔW_eff of a fold, `[outputs, inputs]` in float64: M W, or W M at the input of a map."""
    weight, matrix = _weight(fold), fold.shift.matrix
    return weight @ matrix if fold.at_input else matrix @ weight


def _weight(fold: Fold) -> Tensor:
    return _as_linear(fold.module, fold.module.get_parameter("weight")).detach().double().cpu()


def _as_linear(module: nn.Module, weight: Tensor) -> Tensor:
    """Convert a weight to or from `[outputs, inputs]`. Only GPT-2's Conv1D stores it transposed."""
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _config_with_biases(base: Any, folds: Sequence[Fold]) -> PreTrainedConfig | None:
    """Return a config whose model has every bias that the folds need, or None if the model has them already."""
    missing = [fold.name for fold in folds if cast(Any, fold.module).bias is None and fold.shift.constant.any()]
    if not missing:
        return None
    config = base.config
    for switch in BIAS_SWITCHES:
        if missing and getattr(config, switch, None) is False:
            candidate = deepcopy(config)
            setattr(candidate, switch, True)
            with torch.device("meta"):
                skeleton = type(base)(candidate)
            left = [name for name in missing if getattr(skeleton.get_submodule(name), "bias", None) is None]
            if len(left) < len(missing):
                config, missing = candidate, left
    if missing:
        lacks = f"{missing[0]} has no bias, and the config of {type(base).__name__} has no switch for one"
        raise ActshiftError(f"{lacks}; to merge the adapter, train it without a bias.")
    return config


def _rebuild(plain: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model rebuilt from a config with more biases. The added biases are zero."""
    first = next(plain.parameters())
    model_class: Any = type(plain)
    model: PreTrainedModel = model_class(config).to(device=first.device, dtype=first.dtype)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.endswith(".bias") for name in missing), (missing, unexpected)
    for name in missing:
        nn.init.zeros_(model.get_parameter(name))
    model.tie_weights()
    model.generation_config = plain.generation_config
    return model.eval()


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW_eff of one map: Frobenius norm, that norm over ‖W‖, rank, and the norm of the constant added to the bias."""

    layer: int
    site: str
    weight: str
    norm: float
    share: float
    rank: int
    constant: float


@dataclass(frozen=True)
class WeightUpdates(Printable):
    """The weight updates that are equivalent to an adapter. They print as a table and convert to JSON."""

    updates: tuple[WeightUpdate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        right = [Column(name, justify="right") for name in ("‖ΔW_eff‖", "over ‖W‖", "rank", "‖constant‖")]
        table = Table("layer", "site", Column("weight", overflow="fold"), *right, box=None, pad_edge=False)
        for update in self.updates:
            figures = number(update.norm, 4), f"{update.share:.2%}", str(update.rank), number(update.constant, 4)
            table.add_row(str(update.layer), update.site, update.weight, *figures)
        return table


def weight_updates(model: Any) -> WeightUpdates:
    """Return the weight update that equals each active adapter, or raise ActshiftError as `plan_folds` does.

    Source: arXiv 2603.00425, §3: LoReFT after the MLP is ΔW_d = (RᵀW - RᵀR) W_d and the constant Rᵀb.

    >>> from actshift import LoReFT, SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> weight_updates(attach(load_base()[0], SteeringConfig(adapter=LoReFT(2), site="post_mlp"))).updates
    ()
    """
    updates: list[WeightUpdate] = []
    for fold in plan_folds(model):
        update = effective_update(fold)
        values, norm, constant = torch.linalg.svdvals(update), update.norm(), fold.shift.constant.norm().item()
        rank = int((values > RANK_TOLERANCE * values[0]).sum()) if values[0] > 0 else 0
        share = (norm / _weight(fold).norm()).item()
        updates.append(WeightUpdate(fold.layer, fold.site, fold.name, norm.item(), share, rank, constant))
    return WeightUpdates(tuple(updates))
