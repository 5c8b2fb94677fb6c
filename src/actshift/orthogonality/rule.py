"""The orthogonality rule between the two halves of a joint adapter."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from actshift.errors import ActshiftError, check_choice, check_fields, is_number, show

Side = Literal["read", "write", "both"]


@dataclass(frozen=True)
class Orthogonality:
    """Keep the steering half of a joint adapter orthogonal to the output of its LoRA half in the same block.

    Q `[d, r]` is an orthonormal basis of the columns of the LoRA-B of the block's MLP output map. After an optimiser
    step the rule projects `W_down [r', d]` or `W_up [d, r']` of the shift, computed in float64.

    Args:
        side: "read" (the paper's) sets W_down ← W_down (I − QQᵀ), "write" sets W_up ← (I − QQᵀ) W_up, "both" does both.
        every: number of optimiser steps between projections, or "epoch". The rule is not satisfied in between.
        penalty: λ of a soft rule, which replaces the projection: λ‖W_down Q‖²_F (or λ‖QᵀW_up‖²_F) is added to the loss
            of every step, with Q treated as constant. None to project.

    Raises:
        ActshiftError: an unknown side, `every` below 1, a penalty that is not a positive finite number, or a penalty
            together with `every`.

    Source: arXiv 2603.00425, joint adaptation; docs/method.md#orthogonality. This project, docs/method.md#joint-rule:
    "write", "both", the penalty, and projecting after the step. The paper's code projects before the step, so its
    checkpoint is one step away from satisfying the rule.

    >>> Orthogonality(side="write").to_dict()
    {'side': 'write', 'every': 1, 'penalty': None}
    """

    side: Side = "read"
    every: int | Literal["epoch"] = 1
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_choice("side", self.side, get_args(Side))
        if self.every != "epoch" and (type(self.every) is not int or not 1 <= self.every < 2**31):
            raise ActshiftError(
                f"every must be a number of optimiser steps from 1 up, or 'epoch'; got {show(self.every)}."
            )
        if self.penalty is None:
            return
        if not is_number(self.penalty) or self.penalty <= 0:
            raise ActshiftError(f"penalty must be finite and above 0, or None to project; got {show(self.penalty)}.")
        if self.every != 1:
            raise ActshiftError(f"A penalty acts at every step and cannot be combined with every={show(self.every)}.")

    @property
    def reads(self) -> bool:
        """Whether the rule applies to `Shift.reads` (W_down)."""
        return self.side in ("read", "both")

    @property
    def writes(self) -> bool:
        """Whether the rule applies to `Shift.writes` (W_up, or a vector)."""
        return self.side in ("write", "both")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict of the fields, for `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Orthogonality:
        """Return the rule that `to_dict` described, or raise ActshiftError for an unknown field or invalid values.

        >>> Orthogonality.from_dict({"every": "epoch"})
        Orthogonality(side='read', every='epoch', penalty=None)
        """
        check_fields("Orthogonality", values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)
