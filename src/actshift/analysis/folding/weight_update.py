"""The weight update that a linear shift amounts to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import RenderableType
from rich.table import Column, Table
from torch import Tensor

from actshift.analysis.folding.merge import as_linear
from actshift.analysis.folding.plan import Fold, plan_folds
from actshift.analysis.plain import Plain

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
