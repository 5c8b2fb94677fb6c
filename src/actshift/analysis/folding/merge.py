"""An ordinary model that does what a steered one does."""

from __future__ import annotations

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
from actshift.analysis.sections import Plain
from actshift.errors import ActshiftError
from actshift.sites.blocks import unwrap
from actshift.tuner.joint.halves import joint_layers

SWITCHES = ("attention_bias", "mlp_bias", "use_bias", "bias")
"""Fields of a config that give linear maps a bias."""


def merged(model: Any) -> PreTrainedModel:
    """Return an ordinary transformers model with the same logits as a steered one, which is taken apart for it.

    The active adapters count, at their strengths; a LoRA is merged by PEFT, and before the steering. A constant needs
    a bias: where the map has none, the config is asked for one, and all others that come with it are zero.

    Raises ActshiftError, with the model untouched, where the steering cannot be folded exactly (see `plan_folds`), or
    the architecture has no bias to give.
    Source: [ours].

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
            apply(fold)
    plain = cast(PreTrainedModel, model.unload())
    return plain if config is None else _rebuilt(plain, config)


def apply(fold: Fold) -> None:
    """Change the weight and the bias of a fold's linear map, in their dtype, computed in float64."""
    module: Any = fold.module
    weight = as_linear(module, module.weight).detach().double().cpu()
    bias = torch.zeros(len(weight), dtype=torch.float64) if module.bias is None else module.bias.detach().double().cpu()
    matrix, constant = fold.shift.matrix, fold.shift.constant
    if fold.at_input:
        bias = bias + weight @ constant
        weight = weight + weight @ matrix
    else:
        weight = weight + matrix @ weight
        bias = bias + matrix @ bias + constant
    module.weight.copy_(as_linear(module, weight))
    if module.bias is not None:
        module.bias.copy_(bias)
    elif bias.any():
        module.bias = nn.Parameter(bias.to(module.weight.device, module.weight.dtype), requires_grad=False)


def as_linear(module: Any, weight: Tensor) -> Tensor:
    """Turn a weight from or into `[outputs, inputs]`; that of GPT-2's Conv1D is the other way round."""
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _config_with_biases(base: Any, folds: Sequence[Fold]) -> PreTrainedConfig | None:
    """Return a config whose model has every bias that the folds need, or None where the model has them already."""
    wanted = [fold.name for fold in folds if cast(Any, fold.module).bias is None and fold.shift.constant.any()]
    if not wanted:
        return None
    config = deepcopy(base.config)
    for switch in SWITCHES:
        if getattr(config, switch, None) is False:
            without = deepcopy(config)
            setattr(config, switch, True)
            if not _lacking(base, config, wanted):
                return config
            if len(_lacking(base, config, wanted)) == len(_lacking(base, without, wanted)):
                config = without  # it does nothing for these
    raise ActshiftError(
        f"{_lacking(base, config, wanted)[0]} has no bias, and the config of {type(base).__name__} has no switch for "
        "one, so a constant shift has nowhere to go; train an adapter without a bias to merge it."
    )


def _lacking(base: Any, config: PreTrainedConfig, wanted: Sequence[str]) -> list[str]:
    with torch.device("meta"):
        skeleton = type(base)(config)
    return [name for name in wanted if getattr(skeleton.get_submodule(name), "bias", None) is None]


def _rebuilt(plain: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model anew by a config with more biases, of which those that the model lacks are zero."""
    first = next(plain.parameters())
    kind: Any = type(plain)
    model = kind(config).to(device=first.device, dtype=first.dtype)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.endswith(".bias") for name in missing), (missing, unexpected)
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
    model.tie_weights()
    model.generation_config = plain.generation_config
    return cast(PreTrainedModel, model.eval())


RANK = 1e-6


@dataclass(frozen=True)
class WeightUpdate:
    """ΔW_eff of one map: its Frobenius norm, that over ‖W‖, its rank, and the norm of the constant at the bias."""

    layer: int
    site: str
    weight: str
    norm: float
    share: float
    rank: int
    constant: float


@dataclass(frozen=True)
class WeightUpdates(Plain):
    """The weight updates that an adapter amounts to; they print as a table and go to JSON."""

    updates: tuple[WeightUpdate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        """Return the table for a terminal."""
        right = [Column(name, justify="right") for name in ("‖ΔW_eff‖", "over ‖W‖", "rank", "‖constant‖")]
        table = Table("layer", "site", Column("weight", overflow="fold"), *right, box=None, pad_edge=False)
        for one in self.updates:
            figures = f"{one.norm:.4g}", f"{one.share:.2%}", str(one.rank), f"{one.constant:.4g}"
            table.add_row(str(one.layer), one.site, one.weight, *figures)
        return table


def weight_updates(model: Any) -> WeightUpdates:
    """Return the weight update that each active adapter of a model amounts to, as `plan_folds` derives it.

    Raises what `plan_folds` raises: for a shift that no weight update gives exactly.
    Source: arXiv 2603.00425, §3: LoReFT at the MLP's output is ΔW_d = (RᵀW - RᵀR) W_d and the constant Rᵀb.

    >>> from actshift import LoReFT, SteeringConfig, attach
    >>> from actshift.demo import load_base
    >>> weight_updates(attach(load_base()[0], SteeringConfig(adapter=LoReFT(2), site="post_mlp"))).updates
    ()
    """
    return WeightUpdates(tuple(_described(fold) for fold in plan_folds(model)))


def effective_update(fold: Fold) -> Tensor:
    """Return ΔW_eff of a fold, `[outputs, inputs]` in float64: M W, or W M at a map's input."""
    weight = as_linear(fold.module, fold.module.weight).detach().double().cpu()  # type: ignore[arg-type]
    return weight @ fold.shift.matrix if fold.at_input else fold.shift.matrix @ weight


def _described(fold: Fold) -> WeightUpdate:
    update, weight = effective_update(fold), fold.module.weight.detach().double()  # type: ignore[operator]
    values = torch.linalg.svdvals(update)
    return WeightUpdate(
        layer=fold.layer,
        site=fold.site,
        weight=fold.name,
        norm=update.norm().item(),
        share=(update.norm() / weight.norm().cpu()).item(),
        rank=int((values > RANK * values[0]).sum()) if values[0] > 0 else 0,
        constant=fold.shift.constant.norm().item(),
    )
